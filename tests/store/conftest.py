from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from store.database import Sessions, open_engine, open_sessions
from tests import servers
from tests.conftest import Tenant, make_tenant


@pytest.fixture(scope="package")
def engine(postgres_url: str) -> Iterator[Engine]:
    with servers.database(postgres_url, "store") as url:
        engine = open_engine(url, pool_size=20)
        yield engine
        engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    """One database for these tests, emptied before each: what looks at all jobs must see this test's alone."""
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE projects CASCADE")
    return open_sessions(engine)


@pytest.fixture
def project_id(sessions: Sessions) -> str:
    tenant: Tenant = make_tenant(sessions, "first")
    return tenant.id
