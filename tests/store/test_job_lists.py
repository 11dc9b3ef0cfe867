"""Pages of jobs by metadata: the same jobs, whether they are found among the newest or by the index."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from store import job_lists
from store.database import Sessions
from store.errors import CursorUnknown
from tests.store.rows import queued_job

pytestmark = pytest.mark.integration
HOLDS = text("UPDATE jobs SET job_metadata = CAST(:metadata AS jsonb) WHERE id = :id")
# As many older jobs as make PostgreSQL choose.
COPIES = text("""INSERT INTO jobs (id, project_id, status, spec, training_file_id, created_at, job_metadata)
    SELECT 'ftjob-0' || lpad(n::text, 31, '0'), project_id, 'cancelled', spec, training_file_id, created_at,
        CASE n WHEN 1 THEN '{"rare": "1"}' ELSE '{"colour": "red"}' END::jsonb
    FROM jobs, generate_series(1, 30000) AS n WHERE jobs.id = :id""")
SCANS = text("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_jobs_metadata'")


@pytest.fixture
def jobs(sessions: Sessions, project_id: str) -> list[str]:
    """Newest first; every second is red, the oldest but one also rare."""
    made = [queued_job(sessions, project_id) for _ in range(9)]
    with sessions.begin() as session:
        for number, job in enumerate(made):
            metadata = '{"colour": "red", "rare": "1"}' if number == 1 else '{"colour": "red"}' if number % 2 else "{}"
            session.execute(HOLDS, {"metadata": metadata, "id": job})
    return made[::-1]


@pytest.mark.parametrize("looked_at", [2, 10_000])
def test_a_page_holds_the_newest_whose_metadata_matches(
    sessions: Sessions, project_id: str, jobs: list[str], monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(job_lists, "LOOKED_AT", looked_at)

    def page(metadata: dict[str, str], after: str | None, limit: int) -> list[str]:
        with sessions() as session:
            rows = job_lists.newest_first(session, project_id, after=after, limit=limit, metadata=metadata)
            return [job.id for job in rows]

    red = jobs[1::2]
    assert page({"colour": "red"}, None, 9) == red
    assert page({"colour": "red"}, None, 2) == red[:2]
    assert page({"colour": "red"}, red[1], 1) == red[2:3]
    assert page({"rare": "1", "colour": "red"}, None, 9) == [jobs[-2]]
    assert page({"colour": "green"}, None, 9) == []
    with pytest.raises(CursorUnknown):
        page({"colour": "red"}, "ftjob-0", 9)


def test_what_few_jobs_hold_is_found_by_the_index(
    sessions: Sessions, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_lists, "LOOKED_AT", 10)
    newest = queued_job(sessions, project_id)
    with sessions.begin() as session:
        session.execute(COPIES, {"id": newest})
        session.execute(text("ANALYZE jobs"))
        before = session.scalar(SCANS)
    with sessions() as session:
        found = job_lists.newest_first(session, project_id, after=None, limit=5, metadata={"rare": "1"})
        assert [job.id for job in found] == [f"ftjob-0{1:031}"]
        session.execute(text("SELECT pg_stat_force_next_flush()"))
        session.commit()
        assert session.scalar(SCANS) == before + 1
