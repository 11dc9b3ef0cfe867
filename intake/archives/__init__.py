"""Containers of uploads: zip, tar, compressed tar."""
