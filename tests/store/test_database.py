"""A process that stops, or is cut off, in the middle of a transaction holds nothing up for long."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from store.database import Sessions, open_engine, open_reader, open_sessions, read
from store.jobs import job_leases
from tests.api.polling import until
from tests.faults.proxy import in_front_of
from tests.store.rows import read_job, running_job

pytestmark = pytest.mark.integration
IDLE = 0.5


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def expired(sessions: Sessions) -> list[str]:
    with sessions.begin() as session:
        return job_leases.expire(session, crash_cap=3)


def test_a_worker_cut_off_while_it_writes_does_not_keep_its_job_from_being_taken_back(
    sessions: Sessions, engine: Engine, project_id: str
) -> None:
    owned = running_job(sessions, project_id, lease_seconds=0)
    with in_front_of(url_of(engine)) as (proxy, url):
        engine = open_engine(url, idle_seconds=IDLE)
        writing = open_sessions(engine)()
        job_leases.record(writing, owned, [])
        with proxy.silent():
            assert expired(sessions) == []  # its row is locked
            until(lambda: expired(sessions) == [owned.job_id], seconds=10 * IDLE)
        with pytest.raises(OperationalError):
            writing.commit()
        writing.close()
        engine.dispose()
    assert read_job(sessions, owned.job_id).status == "queued"


def test_an_idle_transaction_ends_as_any_lost_connection_does_and_the_next_is_good(engine: Engine) -> None:
    short = open_engine(url_of(engine), idle_seconds=IDLE)
    with short.connect() as idle, engine.connect() as watch:
        pid = idle.scalar(text("SELECT pg_backend_pid()"))
        gone = text("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = :pid")

        def ended() -> bool:
            found = bool(watch.scalar(gone, {"pid": pid}))
            watch.rollback()
            return found

        until(ended, seconds=10 * IDLE)
        with pytest.raises(OperationalError):
            idle.execute(text("SELECT 1"))
    with short.connect() as again:
        assert again.scalar(text("SELECT 1")) == 1
    short.dispose()


def test_what_only_reads_is_repeated_where_its_connection_was_lost(engine: Engine) -> None:
    reader = open_reader(url_of(engine))
    own = text("SELECT pg_backend_pid()")
    first = read(reader, lambda connection: connection.scalar(own))
    with engine.connect() as other:
        assert other.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
    second = read(reader, lambda connection: connection.scalar(own))
    assert second not in (None, first)
    reader.dispose()


def test_what_only_reads_holds_no_transaction(engine: Engine) -> None:
    reader = open_reader(url_of(engine))
    pid = read(reader, lambda connection: connection.scalar(text("SELECT pg_backend_pid()")))
    with engine.connect() as other:
        state = other.scalar(text("SELECT state FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid})
    assert state == "idle"
    reader.dispose()


def test_a_reader_that_reaches_no_database_says_so(engine: Engine) -> None:
    with in_front_of(url_of(engine)) as (_, url):
        reader = open_reader(url)
    with pytest.raises(OperationalError):
        read(reader, lambda connection: connection.scalar(text("SELECT 1")))
    reader.dispose()
