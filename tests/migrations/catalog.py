"""What PostgreSQL asks of those who write rows, and what of it a writer of before does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

COLUMNS = text("""
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.atthasdef OR a.attidentity <> ''
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped""")
# Those on NOT NULL are in the columns.
RULES = text("""
    SELECT conrelid::regclass::text, pg_get_constraintdef(oid), ARRAY(
        SELECT attname::text FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'f', 'x')
    UNION ALL
    SELECT indrelid::regclass::text, 'UNIQUE ' || regexp_replace(pg_get_indexdef(indexrelid), '.* USING ', ''), ARRAY(
        SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey))
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE indisunique AND NOT indisprimary AND c.relnamespace = 'public'::regnamespace""")


@dataclass(frozen=True)
class Column:
    type: str
    not_null: bool
    has_default: bool

    def must_be_given(self) -> bool:
        return self.not_null and not self.has_default


@dataclass(frozen=True)
class Rule:
    """A CHECK, UNIQUE or FOREIGN KEY as PostgreSQL prints it."""

    definition: str
    columns: frozenset[str]


@dataclass(frozen=True)
class TableRules:
    columns: Mapping[str, Column]
    rules: frozenset[Rule]


def read(connection: Connection) -> dict[str, TableRules]:
    """Of every table, by name."""
    columns: dict[str, dict[str, Column]] = {}
    for table, name, kind, not_null, has_default in connection.execute(COLUMNS):
        columns.setdefault(table, {})[name] = Column(kind, not_null, has_default)
    rules: dict[str, set[Rule]] = {}
    for table, definition, names in connection.execute(RULES):
        rules.setdefault(table, set()).add(Rule(definition, frozenset(names)))
    return {table: TableRules(own, frozenset(rules.get(table, ()))) for table, own in columns.items()}


def breaks(before: Mapping[str, TableRules], after: Mapping[str, TableRules]) -> list[str]:
    """What of ``after`` a writer or reader of ``before`` runs into, a line each."""
    return [line for table, old in before.items() for line in _of_table(table, old, after.get(table))]


def _of_table(table: str, old: TableRules, new: TableRules | None) -> Iterator[str]:
    if new is None:
        yield f"{table} is gone"
        return
    for name, column in old.columns.items():
        yield from _of_column(f"{table}.{name}", column, new.columns.get(name))
    for name in new.columns.keys() - old.columns.keys():
        if new.columns[name].must_be_given():
            yield f"{table}.{name} must be given"
    for rule in new.rules - old.rules:
        if rule.columns & old.columns.keys():
            yield f"{table} asks for {rule.definition}"


def _of_column(name: str, old: Column, new: Column | None) -> Iterator[str]:
    if new is None:
        yield f"{name} is gone"
    elif new.type != old.type:
        yield f"{name} is {new.type}, not {old.type}"
    elif new.must_be_given() and not old.must_be_given():
        yield f"{name} must be given"
    elif new.not_null and not old.not_null:
        yield f"{name} may no longer be NULL"
