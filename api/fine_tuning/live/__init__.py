"""A job while it runs: its events as they come, its metrics as series."""
