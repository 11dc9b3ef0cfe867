"""Alembic without an ini file: one function to upgrade a database, one to compare it with the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from store.database import open_engine
from store.tables.base import Table


def alembic_config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    command.upgrade(alembic_config(database_url), revision)


def differences(database_url: str) -> list[Any]:
    """What autogenerate would still change; empty when the migrations build exactly the models."""
    engine = open_engine(database_url)
    with engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection), Table.metadata)
    engine.dispose()
    return found
