"""The version before runs on a database that a newer version has migrated: two checkouts, one database."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from migrations.revision import DatabaseTooNew, is_newer, newest, outdated, revision_of
from migrations.upgrade import upgrade
from store.database import open_engine
from store.settings import REPOSITORY
from tests import servers
from tests.cli.home import Home

pytestmark = pytest.mark.integration
NEWER = "9000"
MIGRATION = f'''"""A migration of the version after this one."""

from alembic import op

revision = "{NEWER}"
down_revision = "{newest()}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for statement in CHANGE:
        op.execute(statement)
'''
ADDS = [
    "CREATE TABLE additions (id text PRIMARY KEY, project_id text NOT NULL REFERENCES projects (id), sha256 text)",
    "CREATE UNIQUE INDEX ON additions (sha256)",
    "ALTER TABLE jobs ADD colour text CHECK (colour <> ''), ADD size bigint NOT NULL DEFAULT 0",
    "ALTER TABLE files ADD twin text UNIQUE, ALTER filename DROP NOT NULL",
    "CREATE INDEX ON jobs (colour)",
]
BREAKS = {
    "ALTER TABLE webhook_deliveries RENAME TO sendings": "webhook_deliveries is gone",
    "ALTER TABLE jobs DROP COLUMN progress": "jobs.progress is gone",
    "ALTER TABLE jobs ADD colour text NOT NULL": "jobs.colour must be given",
    "ALTER TABLE jobs ALTER suffix SET NOT NULL": "jobs.suffix may no longer be NULL",
    "ALTER TABLE files ALTER bytes TYPE text": "files.bytes is TEXT, not BIGINT",
    "ALTER TABLE files ADD CONSTRAINT short CHECK (filename <> 'long')": "files asks for short",
    "CREATE UNIQUE INDEX one_name ON files (filename)": "files asks for unique index one_name",
    "ALTER TABLE files ADD CONSTRAINT alone UNIQUE (filename)": "files asks for alone",
}


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    with servers.database(postgres_url, "rollback") as url:
        yield url


def newer_checkout(to: Path, change: list[str]) -> Path:
    """This version's code with one more migration."""
    for package in ("migrations", "store", "trainer"):
        shutil.copytree(REPOSITORY / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    text = MIGRATION + f"\n\nCHANGE = {change!r}\n"
    (to / "migrations" / "versions" / f"{NEWER}_newer.py").write_text(text, encoding="utf-8")
    return to


def migrate(checkout: Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PAIRTUNE_DATABASE_URL": url, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "migrations"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_this_version_starts_and_works_on_a_database_that_a_newer_one_only_added_to(
    tmp_path: Path, url: str, broker_url: str
) -> None:
    newer = newer_checkout(tmp_path / "newer", ADDS)
    assert migrate(newer, url).returncode == 0
    engine = open_engine(url)
    with engine.connect() as connection:
        assert (revision_of(connection), is_newer(connection), outdated(connection)) == (NEWER, True, False)
    older = migrate(REPOSITORY, url)
    assert (older.returncode, older.stderr) == (0, "")

    home = Home(tmp_path / "home")
    try:
        home.up_and_ready(PAIRTUNE_DATABASE_URL=url, PAIRTUNE_BROKER_URL=broker_url)
        key = (home.path / "local.key").read_text().strip()
        with httpx.Client(base_url=f"http://127.0.0.1:{home.port}/v1") as client:
            client.headers["authorization"] = f"Bearer {key}"
            sent = client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("pairs.zip", b"no archive")})
            assert sent.status_code == 200
            assert client.get(f"/files/{sent.json()['id']}").status_code == 200
            assert client.delete(f"/files/{sent.json()['id']}").status_code in (200, 409)
    finally:
        home.close()

    assert migrate(newer, url).returncode == 0
    with engine.connect() as connection:
        assert revision_of(connection) == NEWER
    engine.dispose()


@pytest.mark.parametrize("change", BREAKS)
def test_a_database_that_a_newer_version_did_more_to_is_refused_in_a_sentence(
    tmp_path: Path, url: str, change: str
) -> None:
    assert migrate(newer_checkout(tmp_path, [*ADDS, change] if "colour" not in change else [change]), url).stderr == ""
    with pytest.raises(DatabaseTooNew) as refused:
        upgrade(url)
    assert BREAKS[change] in refused.value.reasons
    assert len(refused.value.reasons) == 1


def test_the_command_refuses_it_without_a_traceback(tmp_path: Path, url: str) -> None:
    [change, *_] = BREAKS
    migrate(newer_checkout(tmp_path, [change]), url)
    refused = migrate(REPOSITORY, url)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"A newer version has migrated the database to {NEWER}, and this version cannot use it: {BREAKS[change]}. "
        "Start the newer version again, or restore a backup of this version."
    ]
