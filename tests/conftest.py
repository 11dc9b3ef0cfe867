"""Fixtures for every test that needs real services: one PostgreSQL and one Valkey a run, a fresh database a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine

from store import keys
from store.database import Sessions, open_engine, open_sessions
from store.roles import Role
from tests import servers

_databases = itertools.count(1)


@dataclass(frozen=True)
class Tenant:
    """A project with a key of its own."""

    id: str
    name: str
    api_key: str


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with servers.valkey() as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A migrated, empty database that this test has to itself."""
    with servers.database(postgres_url, f"test_{next(_databases)}") as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    return open_sessions(engine)


def emptied(engine: Engine) -> Sessions:
    """Sessions on a database that several tests share, with nothing left in it of the one before."""
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE projects CASCADE")
    return open_sessions(engine)


@pytest.fixture
def broker_url(valkey_url: str) -> str:
    """An empty broker."""
    with servers.broker_client(valkey_url) as client:
        client.flushall()
    return valkey_url


def make_tenant(sessions: Sessions, name: str) -> Tenant:
    with sessions.begin() as session:
        project = keys.ensure_project(session, name)
        return Tenant(project.id, name, keys.create(session, project, f"{name}'s key", Role.ADMIN))


@pytest.fixture
def project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, "first")


@pytest.fixture
def other_project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, "second")


@pytest.fixture
def api_key(project: Tenant) -> str:
    return project.api_key
