"""A run directory: what a run is told and what it leaves."""
