"""The upload formats, read as judgements: one module per format, detected by its columns or folders."""
