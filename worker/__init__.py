"""The Celery app and what it runs: file intake, training supervision, the dispatcher. Imports no torch."""
