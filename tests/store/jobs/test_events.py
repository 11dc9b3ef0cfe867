"""A job's log as clients read it: on from what they have seen, and backwards in pages."""

from __future__ import annotations

import pytest

from store.database import Sessions
from store.errors import CursorUnknown
from store.jobs import events
from store.jobs.events import NewEvent
from tests.store.rows import queued_job, read_events

pytestmark = pytest.mark.integration


def report(sessions: Sessions, job_id: str, *messages: str) -> None:
    with sessions.begin() as session:
        events.append(session, job_id, [NewEvent(message) for message in messages])


def test_of_several_jobs_each_is_read_on_from_where_it_was_read_up_to(sessions: Sessions, project_id: str) -> None:
    first, second, third = (queued_job(sessions, project_id) for _ in range(3))
    for job_id, name in ((first, "a"), (second, "b"), (third, "c"), (first, "d"), (second, "e")):
        report(sessions, job_id, name)
    seen = {first: read_events(sessions, first)[-1].sequence - 1, second: read_events(sessions, second)[0].sequence}
    with sessions() as session:
        found = events.after_each(session, seen, limit=9)
        assert [(event.job_id, event.message) for event in found] == [(second, "b"), (first, "d"), (second, "e")]
        assert [event.message for event in events.after_each(session, seen, limit=2)] == ["b", "d"]
        assert events.after_each(session, {}, limit=9) == []


def test_a_log_is_read_backwards_page_by_page(sessions: Sessions, project_id: str) -> None:
    job_id, other_id = queued_job(sessions, project_id), queued_job(sessions, project_id)
    report(sessions, job_id, *"abcd")
    ids = [event.id for event in read_events(sessions, job_id)[::-1]]
    with sessions() as session:
        pages = [events.newest_first(session, job_id, after=after, limit=2) for after in (None, ids[1], ids[3])]
        assert [[event.id for event in page] for page in pages] == [ids[:2], ids[2:4], ids[4:]]
        for after in (read_events(sessions, other_id)[0].id, "ftevent-none"):
            with pytest.raises(CursorUnknown, match=after):
                events.newest_first(session, job_id, after=after, limit=2)


def test_an_event_is_found_in_the_log_of_its_own_job_alone(sessions: Sessions, project_id: str) -> None:
    job_id, other_id = queued_job(sessions, project_id), queued_job(sessions, project_id)
    [event] = read_events(sessions, job_id)
    with sessions() as session:
        assert events.sequence_of(session, job_id, event.id) == event.sequence
        assert events.sequence_of(session, other_id, event.id) is None


def test_metrics_are_the_events_of_that_type_oldest_first(sessions: Sessions, project_id: str) -> None:
    job_id, other_id = queued_job(sessions, project_id), queued_job(sessions, project_id)
    with sessions.begin() as session:
        for one, step in ((job_id, 1), (other_id, 2), (job_id, 3)):
            events.append(session, one, [NewEvent("m", type="metrics", data={"step": step}), NewEvent("message")])
    with sessions() as session:
        assert [event.data for event in events.metrics(session, job_id)] == [{"step": 1}, {"step": 3}]
