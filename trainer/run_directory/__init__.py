"""A run directory: the specification and data of a run, and its results."""
