"""Alembic's entry: runs the migrations online, one transaction each, under an advisory lock.

A database that a newer version has migrated stays as it is, if this version can use it.
"""

import time

from alembic import context
from sqlalchemy import text

from migrations.revision import is_newer, require_usable
from store.database import open_engine
from store.tables.base import Table

LOCK = 7_246_001  # any constant of ours: two services that start together must not both migrate

engine = open_engine(context.config.attributes["database_url"])
try:
    with engine.connect() as connection:
        # Asked for again and again: one who waits for the lock within a statement holds up an index that the other one
        # makes beside its readers and writers, which waits for every statement under way.
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
            connection.commit()
            time.sleep(0.1)
        connection.commit()
        context.configure(connection=connection, target_metadata=Table.metadata, transaction_per_migration=True)
        if is_newer(connection):
            require_usable(connection)
        else:
            connection.commit()
            with context.begin_transaction():
                context.run_migrations()
        connection.commit()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
        connection.commit()
finally:
    engine.dispose()
