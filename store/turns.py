"""Whose turn it is: the row that a worker takes next, between the projects that share the workers. Nothing commits.

First the project with the fewest rows in work, among equals the one that was served least recently. So with one worker
or many, a project that queues a thousand rows holds up another's first by one row at most a worker. Jobs, uploads and
generations take turns in this way, each kind with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Subquery, case, func, select, true, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.job_status import JobStatus
from store.leases import Leasable, Leases
from store.tables.file import File
from store.tables.generation import Generation, GenerationStatus
from store.tables.job import Job
from store.tables.project import Project

_RUNNING = Job.status == JobStatus.RUNNING
JOBS = Leases(Job, "train", waiting=Job.status == JobStatus.QUEUED, owned=_RUNNING, live=_RUNNING)
_UPLOADED = File.status == "uploaded"
_UNREAD = _UPLOADED & File.deleted_at.is_(None)
FILES = Leases(
    File,
    "intake",
    waiting=_UNREAD & File.lease_expires_at.is_(None),
    owned=_UPLOADED,  # also a file that its owner deletes meanwhile
    live=_UNREAD & File.lease_expires_at.is_not(None),
)
_GENERATING = Generation.status == GenerationStatus.RUNNING
GENERATIONS = Leases(
    Generation, "draw", waiting=Generation.status == GenerationStatus.QUEUED, owned=_GENERATING, live=_GENERATING
)
# Rows that this worker cannot take, passed over in one claim; they stay locked until it ends.
MAX_PASSED_OVER = 20


@dataclass(frozen=True, eq=False)
class Turns:
    """How the projects take turns at the rows of ``leases``.

    ``served_at`` is when a worker last took one of the project's. ``limit`` is the project's own limit of rows in work
    at a time, by its name. ``order`` is that of a project's own rows; the id decides between equals.
    """

    leases: Leases[Any]
    served_at: InstrumentedAttribute[datetime | None]
    limit: str
    order: ColumnElement[Any] | None = None


FILE_TURNS = Turns(FILES, Project.intake_served_at, "running_files")
GENERATION_TURNS = Turns(GENERATIONS, Project.generation_served_at, "running_images")


def next_id(
    session: Session,
    turns: Turns,
    max_running: int | None = None,
    *conditions: ColumnElement[bool],
    suits: Callable[[str], bool] | None = None,
) -> str | None:
    """The id of the row to take now, locked; None if there is none for this worker.

    Passed over are rows that another worker is taking, those of projects that have as many in work as they may
    (``max_running``, or their own limit), and those that do not meet ``conditions`` or do not suit the worker.
    """
    passed: list[str] = []
    while len(passed) < MAX_PASSED_OVER:
        row_id = session.scalar(_next(turns, max_running, *conditions, without=passed))
        if row_id is None or suits is None or suits(row_id):
            return row_id
        passed.append(row_id)
    return None


def may_run(session: Session, turns: Turns, row_id: str, max_running: int | None) -> bool:
    """Whether the project of this waiting row may have one more in work. Where there is a limit, none of its other
    rows starts until this transaction ends."""
    table = turns.leases.table
    of_row = select(Project.id, Project.limits).join(table, table.project_id == Project.id)
    project = session.execute(of_row.where(table.id == row_id, turns.leases.waiting)).one_or_none()
    if project is None:
        return False
    limit: int | None = project.limits.get(turns.limit, max_running)
    if limit is None:
        return True
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))
    running = select(func.count()).select_from(table).where(table.project_id == project.id, turns.leases.live)
    return session.scalars(running).one() < limit


def mark_served(session: Session, turns: Turns, project_id: str) -> None:
    """Note that a worker took a row of the project now, without waiting for a worker that notes the same."""
    unlocked = select(Project.id).where(Project.id == project_id).with_for_update(key_share=True, skip_locked=True)
    now = update(Project).where(Project.id.in_(unlocked)).values({turns.served_at: func.clock_timestamp()})
    session.execute(now.execution_options(synchronize_session=False))


def running_by_project(leases: Leases[Leasable]) -> Subquery:
    """Columns ``project_id`` and ``rows``, of the projects that have rows in work."""
    table: Any = leases.table
    query = select(table.project_id, func.count().label("rows")).where(leases.live)
    return query.group_by(table.project_id).subquery()


def _next(
    turns: Turns, max_running: int | None, *conditions: ColumnElement[bool], without: Collection[str]
) -> Select[str]:
    table, running = turns.leases.table, running_by_project(turns.leases)
    own = Project.limits[turns.limit].astext.cast(Integer)
    limit = case((Project.limits.has_key(turns.limit), own), else_=max_running)
    now = func.coalesce(running.c.rows, 0)
    order = (table.id,) if turns.order is None else (turns.order, table.id)
    return (
        select(table.id)
        .join(Project, Project.id == table.project_id)
        .outerjoin(running, running.c.project_id == table.project_id)
        .where(
            turns.leases.waiting,
            limit.is_(None) | (now < limit),
            table.id.not_in(without) if without else true(),
            *conditions,
        )
        .order_by(now, turns.served_at.nulls_first(), Project.id, *order)
        .limit(1)
        .with_for_update(of=table, skip_locked=True)
    )
