"""Commands that work straight on the database: the one that PAIRTUNE_DATABASE_URL names, or that of a running `up`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from cli.configured import settings
from cli.errors import CommandError
from cli.local.embedded import running_postgres
from store.database import open_engine, open_sessions, unusable
from store.settings import Settings


class NoDatabase(CommandError):
    exit_code = 2


@contextmanager
def database_session() -> Iterator[Session]:
    """Committed at the end."""
    url = database_url(settings())
    try:
        engine = open_engine(url, pool_size=1)
    except (ArgumentError, NoSuchModuleError) as error:
        raise NoDatabase(f"PAIRTUNE_DATABASE_URL: {unusable(error)}") from error
    try:
        with open_sessions(engine).begin() as session:
            yield session
    except OperationalError as error:
        raise NoDatabase(f"PAIRTUNE_DATABASE_URL: {unusable(error)}") from error
    except ProgrammingError as error:
        reason = str(error.orig).splitlines()[0]
        raise NoDatabase(f"The database is not this version's ({reason}): run `python -m migrations`.") from error
    finally:
        engine.dispose()


def database_url(configured: Settings) -> str:
    """Raises NoDatabase."""
    url = configured.database_url or running_postgres(configured.home.resolve())
    if url is None:
        raise NoDatabase(
            f"No database: `pairtune up` does not run in {configured.home.resolve()}, and PAIRTUNE_DATABASE_URL names "
            "no other. Start it, or set that."
        )
    return url
