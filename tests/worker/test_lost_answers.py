"""A commit whose answer never comes: the worker cannot know that it arrived, writes again, and nothing stands twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from store.database import open_engine, open_sessions
from store.errors import LeaseLost
from store.jobs import job_leases
from store.tables.file import File
from tests.faults.proxy import Proxy, in_front_of
from tests.store.rows import claim, queued_job, read_events, read_job
from trainer.spec.events import Phase, SampleWritten
from worker.resources import Resources
from worker.training.attempt import Attempt

pytestmark = pytest.mark.integration


@pytest.fixture
def proxied(resources: Resources, engine: Engine) -> Iterator[tuple[Proxy, Resources]]:
    with in_front_of(engine.url.render_as_string(hide_password=False)) as (proxy, url):
        own = open_engine(url)
        yield proxy, replace(resources, sessions=open_sessions(own))
        own.dispose()


def test_events_are_stored_once(proxied: tuple[Proxy, Resources], resources: Resources, project_id: str) -> None:
    proxy, cut_off = proxied
    attempt = Attempt(claim(resources.sessions, queued_job(resources.sessions, project_id)), Path())
    attempt.receive([Phase(phase="caching", previous="loading", seconds=1.0)])
    proxy.lose_the_answer_to(b"COMMIT")
    with pytest.raises(OperationalError):
        attempt.write(cut_off)
    attempt.receive([Phase(phase="training", previous="caching", seconds=1.0)])
    attempt.write(cut_off)
    messages = [event.message for event in read_events(resources.sessions, attempt.lease.job_id)]
    assert messages[2:] == ["Encoding images and prompts.", "Training."]


def test_a_sample_is_one_file_and_one_event(
    proxied: tuple[Proxy, Resources], resources: Resources, project_id: str, tmp_path: Path
) -> None:
    proxy, cut_off = proxied
    attempt = Attempt(claim(resources.sessions, queued_job(resources.sessions, project_id)), tmp_path)
    (tmp_path / "grid.png").write_bytes(b"sheet")
    attempt.receive([SampleWritten(step=0, paths=("a",), grid="grid.png", seconds=2.0)])
    proxy.lose_the_answer_to(b"COMMIT")
    with pytest.raises(OperationalError):
        attempt.write(cut_off)
    attempt.write(cut_off)
    reported = [event for event in read_events(resources.sessions, attempt.lease.job_id) if "Samples" in event.message]
    with resources.sessions() as session:
        sheets = session.query(File).filter_by(filename="samples-step-0.png").all()
    assert [(event.data or {})["file_id"] for event in reported] == [sheet.id for sheet in sheets]
    assert len(sheets) == 1


def test_a_success_stands_once(proxied: tuple[Proxy, Resources], resources: Resources, project_id: str) -> None:
    """The second try finds the job ended: the lease is lost, and the first one's result stands."""
    proxy, cut_off = proxied
    lease = claim(resources.sessions, queued_job(resources.sessions, project_id))
    proxy.lose_the_answer_to(b"COMMIT")
    with pytest.raises(OperationalError), cut_off.sessions.begin() as session:
        job_leases.succeed(session, lease, results=[])
    with pytest.raises(LeaseLost), cut_off.sessions.begin() as session:
        job_leases.succeed(session, lease, results=[])
    assert read_job(resources.sessions, lease.job_id).status == "succeeded"
