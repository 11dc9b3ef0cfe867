"""Uploads that come in parts."""
