from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from store.database import Sessions, open_engine
from tests import servers
from tests.conftest import emptied, make_tenant


@pytest.fixture(scope="package")
def engine(postgres_url: str) -> Iterator[Engine]:
    with servers.database(postgres_url, "store") as url:
        engine = open_engine(url, pool_size=20)
        yield engine
        engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    """One database for these tests, emptied before each: what looks at all jobs must see this test's alone."""
    return emptied(engine)


@pytest.fixture
def project_id(sessions: Sessions) -> str:
    return make_tenant(sessions, "first").id
