"""Immutable bytes under their SHA-256, and the disk that they are on."""
