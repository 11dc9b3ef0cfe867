"""Uploads, listing and downloads of files."""
