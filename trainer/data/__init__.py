"""A run's pairs: captions, encoding, batches and noise."""
