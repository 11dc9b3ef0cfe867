"""The tables. PostgreSQL is the only truth: a Celery message is a hint, a blob is bytes that a row names.

Importing one imports all of them: a foreign key names its table.
"""

from store.tables import audit, counter, dataset, file, generation, idempotency, image, job, project, upload, webhook

__all__ = [
    "audit",
    "counter",
    "dataset",
    "file",
    "generation",
    "idempotency",
    "image",
    "job",
    "project",
    "upload",
    "webhook",
]
