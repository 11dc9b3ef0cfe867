"""What the API remembers for a moment, so that polling clients cost little."""
