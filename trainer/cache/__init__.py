"""What frozen networks made of the data, on disk."""
