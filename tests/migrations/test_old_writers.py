"""While an installation is upgraded, services of the version before read and write the migrated database."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from migrations.upgrade import alembic_config, differences, upgrade
from store.database import open_engine, open_sessions
from tests import servers
from tests.conftest import make_tenant
from tests.migrations.catalog import breaks, read
from tests.store.rows import add_generation, queued_job, read_events, read_job, running_job

pytestmark = pytest.mark.integration
FIRST = "0011"  # docs/decisions/0013-migrations.md: every step after this one is made beside its predecessor's services


def steps() -> list[tuple[str, str]]:
    scripts = ScriptDirectory.from_config(alembic_config(""))
    after_first = [one.revision for one in scripts.iterate_revisions("head", FIRST)][::-1]
    return list(pairwise([FIRST, *after_first]))


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[str]:
    with servers.empty_database(postgres_url, "old_writers") as url:
        upgrade(url, FIRST)
        yield url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(("before", "after"), steps())
def test_a_step_leaves_alone_what_services_of_the_version_before_write(
    database: str, engine: Engine, before: str, after: str
) -> None:
    upgrade(database, before)
    with engine.connect() as connection:
        known = read(connection)
    upgrade(database, after)
    with engine.connect() as connection:
        assert breaks(known, read(connection)) == []


def test_rows_outlive_the_way_back_to_the_first_step_and_forth(postgres_url: str) -> None:
    with servers.database(postgres_url, "back_and_forth") as url:
        engine = open_engine(url)
        sessions = open_sessions(engine)
        tenant = make_tenant(sessions, "first")
        waiting, running = queued_job(sessions, tenant.id), running_job(sessions, tenant.id).job_id
        add_generation(sessions, tenant.id)
        reported = [one.message for one in read_events(sessions, running)]
        engine.dispose()
        command.downgrade(alembic_config(url), FIRST)
        upgrade(url)
        assert differences(url) == []
        engine = open_engine(url)
        sessions = open_sessions(engine)
        assert (read_job(sessions, waiting).status, read_job(sessions, running).status) == ("queued", "running")
        assert [one.message for one in read_events(sessions, running)] == reported
        engine.dispose()


BEFORE = """CREATE TABLE looked_at (id text PRIMARY KEY, number int NOT NULL DEFAULT 0, name text);
    CREATE TABLE other (id text PRIMARY KEY)"""


@pytest.fixture
def trial(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execute(text(BEFORE))
        yield connection
        connection.rollback()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DROP TABLE looked_at", "looked_at is gone"),
        ("ALTER TABLE looked_at RENAME name TO title", "looked_at.name is gone"),
        ("ALTER TABLE looked_at ADD colour text NOT NULL", "looked_at.colour must be given"),
        ("ALTER TABLE looked_at ALTER number DROP DEFAULT", "looked_at.number must be given"),
        ("ALTER TABLE looked_at ALTER name SET NOT NULL", "looked_at.name must be given"),
        (
            "ALTER TABLE looked_at ALTER name SET DEFAULT '', ALTER name SET NOT NULL",
            "looked_at.name may no longer be NULL",
        ),
        ("ALTER TABLE looked_at ALTER number TYPE bigint", "looked_at.number is bigint, not integer"),
        ("ALTER TABLE looked_at ADD CHECK (number > 1)", "looked_at asks for CHECK ((number > 1))"),
        ("ALTER TABLE looked_at ADD UNIQUE (name)", "looked_at asks for UNIQUE (name)"),
        (
            "CREATE UNIQUE INDEX ON looked_at (lower(name), number)",
            "looked_at asks for UNIQUE btree (lower(name), number)",
        ),
        (
            "ALTER TABLE looked_at ADD FOREIGN KEY (name) REFERENCES other (id)",
            "looked_at asks for FOREIGN KEY (name) REFERENCES other(id)",
        ),
    ],
)
def test_what_tightens_is_found(trial: Connection, change: str, found: str) -> None:
    known = read(trial)
    trial.execute(text(change))
    assert found in breaks(known, read(trial))


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE another (id text PRIMARY KEY, must text NOT NULL)",
        "ALTER TABLE looked_at ADD colour text CHECK (colour <> '')",
        "ALTER TABLE looked_at ADD colour text NOT NULL DEFAULT 'red'",
        "ALTER TABLE looked_at ALTER number DROP NOT NULL, ALTER name SET DEFAULT ''",
        "CREATE INDEX ON looked_at (name)",
    ],
)
def test_what_adds_or_loosens_is_not(trial: Connection, change: str) -> None:
    known = read(trial)
    trial.execute(text(change))
    assert breaks(known, read(trial)) == []
