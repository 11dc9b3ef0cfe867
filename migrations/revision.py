"""Which migrations a database has had, against those that this version knows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from migrations.upgrade import alembic_config
from store.database import open_engine
from store.tables.base import Table

CHECKS = text("""
    SELECT conrelid::regclass::text, conname::text, ARRAY(
        SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey))
    FROM pg_constraint WHERE connamespace = current_schema()::regnamespace AND contype = 'c'""")


class DatabaseTooNew(Exception):
    """A newer version has migrated the database, and not only added to it."""

    def __init__(self, revision: str, reasons: list[str]) -> None:
        super().__init__(
            f"A newer version has migrated the database to {revision}, and this version cannot use it: "
            f"{'; '.join(reasons)}. Start the newer version again, or restore a backup of this version."
        )
        self.reasons = reasons


def outdated(connection: Connection) -> bool:
    """Whether the database still lacks a migration of this version.

    A revision that is not known here is a newer version's, whose tables this one can use: services are updated one
    after the other.
    """
    current = revision_of(connection)
    return current is None or current in known() - {newest()}


def is_newer(connection: Connection) -> bool:
    """Whether the database has a migration that this version does not know."""
    current = revision_of(connection)
    return current is not None and current not in known()


def newer_revision(database_url: str) -> str | None:
    """That of a newer version whose database this one can use; None where this version knows it.

    Raises DatabaseTooNew.
    """
    engine = open_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            if not is_newer(connection):
                return None
            require_usable(connection)
            return revision_of(connection)
    finally:
        engine.dispose()


def require_usable(connection: Connection) -> None:
    """Check that a newer version's migrations only added: docs/decisions/0013-migrations.md. Raises DatabaseTooNew."""
    reasons = sorted({*_differences(connection), *_new_checks(connection)})
    if reasons:
        raise DatabaseTooNew(str(revision_of(connection)), reasons)


def revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    return _scripts().get_current_head()


@cache
def known() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config(""))


def _differences(connection: Connection) -> Iterator[str]:
    """What this version's tables need and the database lacks, or what the database asks for in addition."""
    for found in compare_metadata(MigrationContext.configure(connection), Table.metadata):
        for change in found if isinstance(found, list) else [found]:  # Alembic groups those of a column
            yield from _broken_by(change)


def _broken_by(change: tuple[Any, ...]) -> Iterator[str]:
    """``change`` is what Alembic would do to make the database this version's."""
    match change:
        case ("add_table", table):
            yield f"{table.name} is gone"
        case ("add_column", _, table, column):
            yield f"{table}.{column.name} is gone"
        case ("remove_column", _, table, column):
            if not column.nullable and column.server_default is None and column.identity is None:
                yield f"{table}.{column.name} must be given"
        case ("modify_nullable", _, table, column, _, False, True):
            yield f"{table}.{column} may no longer be NULL"
        case ("modify_type", _, table, column, _, found, ours):
            yield f"{table}.{column} is {found}, not {ours}"
        case ("remove_index", index) if index.unique:
            yield from _rule(index.table.name, f"unique index {index.name}", [one.name for one in index.columns])
        case ("remove_constraint" | "remove_fk", constraint):
            yield from _rule(constraint.table.name, str(constraint.name), [one.name for one in constraint.columns])


def _new_checks(connection: Connection) -> Iterator[str]:
    """Alembic does not compare them."""
    ours = {str(rule.name) for table in Table.metadata.tables.values() for rule in table.constraints}
    for table, name, columns in connection.execute(CHECKS):
        if name not in ours:
            yield from _rule(table, name, columns)


def _rule(table: str, rule: str, columns: list[str]) -> Iterator[str]:
    """One on columns that this version does not know never concerns what it writes."""
    known_table = Table.metadata.tables.get(table)
    if known_table is not None and any(column in known_table.columns for column in columns):
        yield f"{table} asks for {rule}"
