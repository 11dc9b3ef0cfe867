"""Pages of jobs by metadata: the same jobs, whether they are found among the newest or by the index."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from store.database import Sessions
from store.errors import CursorUnknown
from store.jobs import job_leases, jobs, listing
from tests.conftest import make_tenant
from tests.store.rows import queued_job, read_job, running_job

pytestmark = pytest.mark.integration
HOLDS = text("UPDATE jobs SET job_metadata = CAST(:metadata AS jsonb) WHERE id = :id")
# As many older jobs as make PostgreSQL choose.
COPIES = text("""INSERT INTO jobs (id, project_id, status, spec, training_file_id, created_at, job_metadata)
    SELECT 'ftjob-0' || lpad(n::text, 31, '0'), project_id, 'cancelled', spec, training_file_id, created_at,
        CASE n WHEN 1 THEN '{"rare": "1"}' ELSE '{"colour": "red"}' END::jsonb
    FROM jobs, generate_series(1, 30000) AS n WHERE jobs.id = :id""")
SCANS = text("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_jobs_metadata'")


@pytest.fixture
def listed(sessions: Sessions, project_id: str) -> list[str]:
    """Newest first; every second is red, the oldest but one also rare."""
    made = [queued_job(sessions, project_id) for _ in range(9)]
    with sessions.begin() as session:
        for number, job in enumerate(made):
            metadata = '{"colour": "red", "rare": "1"}' if number == 1 else '{"colour": "red"}' if number % 2 else "{}"
            session.execute(HOLDS, {"metadata": metadata, "id": job})
    return made[::-1]


@pytest.mark.parametrize("read", [2, 10_000])
def test_a_page_holds_the_newest_whose_metadata_matches(
    sessions: Sessions, project_id: str, listed: list[str], monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    monkeypatch.setattr(listing, "SCANNED_JOBS", read)

    def page(metadata: dict[str, str], after: str | None, limit: int) -> list[str]:
        with sessions() as session:
            rows = listing.newest_first(session, project_id, after=after, limit=limit, metadata=metadata)
            return [job.id for job in rows]

    red = listed[1::2]
    assert page({"colour": "red"}, None, 9) == red
    assert page({"colour": "red"}, None, 2) == red[:2]
    assert page({"colour": "red"}, red[1], 1) == red[2:3]
    assert page({"rare": "1", "colour": "red"}, None, 9) == [listed[-2]]
    assert page({"colour": "green"}, None, 9) == []
    with pytest.raises(CursorUnknown):
        page({"colour": "red"}, "ftjob-0", 9)


def test_what_few_jobs_hold_is_found_by_the_index(
    sessions: Sessions, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_JOBS", 10)
    newest = queued_job(sessions, project_id)
    with sessions.begin() as session:
        session.execute(COPIES, {"id": newest})
        session.execute(text("ANALYZE jobs"))
        before = session.scalar(SCANS)
    with sessions() as session:
        found = listing.newest_first(session, project_id, after=None, limit=5, metadata={"rare": "1"})
        assert [job.id for job in found] == [f"ftjob-0{1:031}"]
        session.execute(text("SELECT pg_stat_force_next_flush()"))
        session.commit()
        assert session.scalar(SCANS) == before + 1


def test_models_are_listed_page_by_page_and_to_their_project_alone(sessions: Sessions, project_id: str) -> None:
    other_id = make_tenant(sessions, "second").id
    models = []
    for owner in (project_id, other_id, project_id, project_id):
        owned = running_job(sessions, owner)
        with sessions.begin() as session:
            job_leases.succeed(session, owned, results=[])
        models.append(read_job(sessions, owned.job_id).fine_tuned_model or "")
    queued_job(sessions, project_id)
    mine, strangers = [models[3], models[2], models[0]], models[1]

    def page(after: str | None, limit: int, project: str = project_id) -> list[str | None]:
        with sessions() as session:
            found = listing.fine_tuned(session, project, after=after, limit=limit)
            return [job.fine_tuned_model for job in found]

    assert page(None, 9) == mine
    assert (page(None, 2), page(mine[1], 2)) == (mine[:2], mine[2:])
    assert page(None, 9, other_id) == [strangers]
    for unknown in (strangers, "ft:tiny:test:none", mine[0].removeprefix("ft:")):
        with pytest.raises(CursorUnknown, match=unknown):
            page(unknown, 9)
    with sessions.begin() as session:
        jobs.delete_model(session, project_id, mine[1])
    assert page(None, 9) == [mine[0], mine[2]]
    assert page(mine[1], 9) == mine[2:]  # a model that is gone is still a place to go on from
