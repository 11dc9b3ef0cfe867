"""The training program, usable alone: ``python -m trainer run DIR``. Knows no HTTP, no Celery, no SQL."""
