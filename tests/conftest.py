"""Fixtures for every test that needs real services.

Each test process starts one PostgreSQL and one Valkey when a test first needs them; each test has a fresh database.
Imports stand in the fixtures, because this file is loaded for every test, and a test of pure code needs no database.
Of several test processes each computes with one thread, so that together they use no more threads than cores.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from store.database import Sessions

if "PYTEST_XDIST_WORKER" in os.environ:
    # Set before numpy and torch are loaded; subprocesses inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_databases = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Drop hypothesis' plugin if no test uses it: it imports hypothesis when a run ends, which takes a second."""
    plugin = session.config.pluginmanager.get_plugin("_hypothesis_pytestplugin")
    if plugin is not None and "hypothesis" not in sys.modules:
        session.config.pluginmanager.unregister(plugin)


@pytest.fixture(autouse=True)
def _logs_of_this_test() -> None:
    """An application that an earlier test created has tied the logs to that test's stderr, which may be closed."""
    if "structlog" in sys.modules:
        import structlog

        structlog.reset_defaults()


@dataclass(frozen=True)
class Tenant:
    """A project with a key of its own."""

    id: str
    name: str
    api_key: str


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    from tests import servers

    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    from tests import servers

    with servers.valkey() as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A migrated, empty database that this test has to itself."""
    from tests import servers

    with servers.database(postgres_url, f"test_{next(_databases)}") as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    from store.database import open_engine

    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    from store.database import open_sessions

    return open_sessions(engine)


def emptied(engine: Engine) -> Sessions:
    """Sessions on a database that several tests share, with nothing left in it of the one before."""
    from store.database import open_sessions

    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE projects CASCADE")
    return open_sessions(engine)


@pytest.fixture
def broker_url(valkey_url: str) -> str:
    """An empty broker."""
    from tests import servers

    with servers.broker_client(valkey_url) as client:
        client.flushall()
    return valkey_url


def make_tenant(sessions: Sessions, name: str) -> Tenant:
    from store.roles import Role
    from store.tenants import api_keys

    with sessions.begin() as session:
        project = api_keys.ensure_project(session, name)
        return Tenant(project.id, name, api_keys.create(session, project, f"{name}'s key", Role.ADMIN))


@pytest.fixture
def project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, "first")


@pytest.fixture
def other_project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, "second")


@pytest.fixture
def api_key(project: Tenant) -> str:
    return project.api_key
