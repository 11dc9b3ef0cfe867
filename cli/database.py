"""Commands that work straight on the database that PAIRTUNE_DATABASE_URL names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from cli.errors import CommandError
from store.database import open_engine, open_sessions
from store.settings import MissingSetting, settings


class NoDatabase(CommandError):
    exit_code = 2


@contextmanager
def database_session() -> Iterator[Session]:
    """Committed at the end."""
    try:
        engine = open_engine(settings().required_database_url, pool_size=1)
    except MissingSetting as error:
        raise NoDatabase(str(error)) from error
    try:
        with open_sessions(engine).begin() as session:
            yield session
    except OperationalError as error:
        raise NoDatabase(f"The database does not answer: {error.orig}") from error
    finally:
        engine.dispose()
