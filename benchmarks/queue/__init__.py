"""What a long queue costs."""
