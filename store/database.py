"""Engine and sessions. A session is one transaction: the caller at the edge that opens it commits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy
from psycopg import Connection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

Sessions = sessionmaker[Session]
Found = TypeVar("Found")
KEEPALIVE = {
    "connect_timeout": 5,
    "application_name": "pairtune",
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms; keepalives do not bound a write to a host that went silent
}


def open_engine(url: str, *, pool_size: int = 10, idle_seconds: float = 30.0) -> Engine:
    """Connections are checked before use, so that a restarted PostgreSQL costs no failed request afterwards.

    ``idle_seconds``: PostgreSQL ends a transaction that is open and sends no statement for so long. Its process was
    stopped or cut off, and would hold its locks until the network gives up: a job's row, and the dispatchers' lock.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args=KEEPALIVE,
    )

    @event.listens_for(engine, "connect")
    def limit_idle_transactions(connection: Connection, _: object) -> None:
        connection.autocommit = True  # a statement, not a startup option: poolers in between reject those
        connection.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", [_ms(idle_seconds)])
        connection.autocommit = False

    event.listen(engine, "handle_error", _lost_connection_is_operational)
    return engine


def open_reader(url: str, *, pool_size: int = 5) -> Engine:
    """For ``read`` alone: a statement is one round trip, without a transaction around it or a check before it."""
    reader = create_engine(
        url, pool_size=pool_size, max_overflow=pool_size, isolation_level="AUTOCOMMIT", connect_args=KEEPALIVE
    )
    event.listen(reader, "handle_error", _lost_connection_is_operational)
    return reader


def read(reader: Engine, query: Callable[[sqlalchemy.Connection], Found]) -> Found:
    """What ``query`` finds; it only reads, and is repeated once if the connection turns out to be gone."""
    try:
        with reader.connect() as connection:
            return query(connection)
    except OperationalError as error:
        if not error.connection_invalidated:
            raise
    with reader.connect() as connection:  # a new one: the pool has let go of all that are as old
        return query(connection)


def open_sessions(engine: Engine) -> Sessions:
    return sessionmaker(engine, expire_on_commit=False)


def unusable(error: SQLAlchemyError) -> str | None:
    """Why there is no connection, in a sentence for the operator; None where the error is another one.

    The driver's own text has a line for each address of a host, and no password.
    """
    if isinstance(error, ArgumentError | NoSuchModuleError):
        return "it is not the URL of a database: it should be like postgresql+psycopg://user:password@host/database."
    if not isinstance(error, OperationalError) or error.orig is None:
        return None
    lines = str(error.orig).strip().splitlines() or ["no answer"]
    reason = " ".join(lines[0].removeprefix("connection failed: ").split()).rstrip(".")
    return f"the database does not take the connection: {reason}."


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _lost_connection_is_operational(context: ExceptionContext) -> None:
    """One type for a connection that is gone: psycopg files the end of an idle transaction elsewhere."""
    error = context.sqlalchemy_exception
    if context.is_disconnect and isinstance(error, DBAPIError) and not isinstance(error, OperationalError):
        raise OperationalError(error.statement, error.params, context.original_exception, connection_invalidated=True)
