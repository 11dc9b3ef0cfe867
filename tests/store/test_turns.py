"""Turns: jobs, uploads and generations are taken fairly between projects, within the limit of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import turns
from store.database import Sessions
from store.files import file_leases
from store.generations import generation_leases
from store.jobs import job_leases
from store.tables.project import Project
from store.tenants.limits import ProjectLimits
from store.turns import Turns
from tests.conftest import make_tenant
from tests.store.rows import add_file, add_generation, queued_job

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Kind:
    """``add`` queues a row of a project and returns its id; ``take`` claims the next one; ``free`` ends a lease."""

    add: Callable[[Sessions, str], str]
    take: Callable[[Session, ProjectLimits], str | None]
    turns: Turns
    limits: ProjectLimits


def _job(session: Session, limits: ProjectLimits) -> str | None:
    lease = job_leases.claim_next(session, worker="w", lease_seconds=60, limits=limits)
    return lease.job_id if lease is not None else None


def _file(session: Session, limits: ProjectLimits) -> str | None:
    lease = file_leases.claim_next(session, lease_seconds=60, limits=limits)
    return lease.file_id if lease is not None else None


def _generation(session: Session, limits: ProjectLimits) -> str | None:
    lease = generation_leases.claim_next(session, worker="w", lease_seconds=60, limits=limits)
    return lease.generation_id if lease is not None else None


KINDS = {
    "jobs": Kind(queued_job, _job, Turns(turns.JOBS, Project.served_at, "running_jobs"), ProjectLimits(running_jobs=1)),
    "files": Kind(
        lambda sessions, project: add_file(sessions, project, status="uploaded").id,
        _file,
        turns.FILE_TURNS,
        ProjectLimits(running_files=1),
    ),
    "generations": Kind(
        lambda sessions, project: add_generation(sessions, project),
        _generation,
        turns.GENERATION_TURNS,
        ProjectLimits(running_images=1),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def take(sessions: Sessions, kind: Kind, limits: ProjectLimits | None = None) -> str | None:
    with sessions.begin() as session:
        return kind.take(session, limits or ProjectLimits())


def end(sessions: Sessions, kind: Kind, row_id: str) -> None:
    """As a worker that is done with the row, whatever became of it."""
    table: Any = kind.turns.leases.table
    done = "processed" if table is turns.FILES.table else "failed"
    with sessions.begin() as session:
        session.execute(update(table).where(table.id == row_id).values(status=done, lease_expires_at=None))


def test_one_worker_serves_projects_in_turn_whatever_one_of_them_queues(sessions: Sessions, kind: Kind) -> None:
    greedy, modest = make_tenant(sessions, "a").id, make_tenant(sessions, "b").id
    flood = [kind.add(sessions, greedy) for _ in range(4)]
    first = take(sessions, kind)
    assert first == flood[0]
    own = kind.add(sessions, modest)
    end(sessions, kind, first)
    assert take(sessions, kind) == own
    end(sessions, kind, own)
    later = kind.add(sessions, modest)
    assert take(sessions, kind) == flood[1]
    end(sessions, kind, flood[1])
    assert take(sessions, kind) == later


def test_of_many_workers_the_next_goes_to_the_project_with_the_fewest(sessions: Sessions, kind: Kind) -> None:
    greedy, modest = make_tenant(sessions, "a").id, make_tenant(sessions, "b").id
    flood = [kind.add(sessions, greedy) for _ in range(3)]
    assert [take(sessions, kind) for _ in range(2)] == flood[:2]
    own = [kind.add(sessions, modest) for _ in range(2)]
    assert [take(sessions, kind) for _ in range(3)] == [*own, flood[2]]
    assert take(sessions, kind) is None


def test_a_project_has_no_more_in_work_than_it_may_and_others_go_on(sessions: Sessions, kind: Kind) -> None:
    limited, other = make_tenant(sessions, "a").id, make_tenant(sessions, "b").id
    own = [kind.add(sessions, limited) for _ in range(3)]
    assert take(sessions, kind, kind.limits) == own[0]
    assert take(sessions, kind, kind.limits) is None
    theirs = kind.add(sessions, other)
    assert take(sessions, kind, kind.limits) == theirs
    with sessions.begin() as session:  # its own limit comes before the deployment's
        session.execute(update(Project).where(Project.id == limited).values(limits={kind.turns.limit: 2}))
    assert take(sessions, kind, kind.limits) == own[1]
    assert take(sessions, kind, kind.limits) is None


def test_a_project_at_its_limit_is_passed_over_even_when_it_would_come_first(sessions: Sessions, kind: Kind) -> None:
    limited, other = make_tenant(sessions, "a").id, make_tenant(sessions, "b").id
    with sessions.begin() as session:
        session.execute(update(Project).where(Project.id == limited).values(limits={kind.turns.limit: 1}))
    for _ in range(2):
        kind.add(sessions, limited)
    theirs = [kind.add(sessions, other) for _ in range(3)]
    assert [take(sessions, kind) for _ in range(3)][1:] == theirs[:2]
    assert take(sessions, kind) == theirs[2]  # of the two, the limited one has fewer in work


def test_turns_of_one_kind_say_nothing_of_another(sessions: Sessions) -> None:
    one = make_tenant(sessions, "a").id
    for kind in KINDS.values():
        kind.add(sessions, one)
    assert take(sessions, KINDS["files"]) is not None
    with sessions() as session:
        served = session.execute(select(Project.served_at, Project.intake_served_at, Project.generation_served_at))
        assert [moment is not None for moment in served.one()] == [False, True, False]
        assert session.scalar(select(func.count()).select_from(Project)) == 1
