"""The loop that no lost message and no dead worker can stop; ``python -m worker.dispatcher``."""
