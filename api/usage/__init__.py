"""What a project uses, and what is left to it."""
