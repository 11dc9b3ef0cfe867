"""Generating images that users requested."""
