"""Everything that lasts: models, queries, the job state machine, blobs, settings."""
