"""The cache of encoded images and prompts on disk."""
