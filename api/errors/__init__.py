"""Errors become HTTP answers."""
