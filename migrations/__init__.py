"""Alembic migrations; ``python -m migrations`` brings PAIRTUNE_DATABASE_URL up to date."""
