"""The public API as the command line uses it: requests, retries, following a job."""
