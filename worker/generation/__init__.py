"""Making images that users asked for."""
