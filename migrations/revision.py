"""Which migrations a database has had, against those that this version knows."""

from __future__ import annotations

from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from migrations.upgrade import alembic_config


def outdated(connection: Connection) -> bool:
    """Whether the database still lacks a migration of this version.

    A revision that is not known here is a newer version's, whose tables this one can use: services are updated one
    after the other.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    return current is None or current in older()


@cache
def older() -> frozenset[str]:
    """All revisions but the newest."""
    scripts = ScriptDirectory.from_config(alembic_config(""))
    return frozenset(script.revision for script in scripts.walk_revisions()) - {scripts.get_current_head()}
