"""One request, one transaction: committed here, and hints published after the commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from api.dependencies import Dependencies
from store import leases
from store.database import Sessions
from store.hints import Hints
from store.turns import FILES, GENERATIONS, JOBS


@dataclass(frozen=True)
class UnitOfWork:
    """An open transaction, and the hints to publish once it is committed; jobs with the memory they need."""

    session: Session
    files_to_read: list[str] = field(default_factory=list)
    jobs_to_train: dict[str, int | None] = field(default_factory=dict)
    images_to_generate: list[str] = field(default_factory=list)


@contextmanager
def transaction(dependencies: Dependencies) -> Iterator[UnitOfWork]:
    with dependencies.sessions.begin() as session:
        work = UnitOfWork(session)
        yield work
    if work.files_to_read or work.jobs_to_train or work.images_to_generate:
        _publish(dependencies.sessions, dependencies.hints, work)


def _publish(sessions: Sessions, hints: Hints, work: UnitOfWork) -> None:
    """A hint that could not be sent stays unmarked, and the dispatcher sends it."""
    read = [file_id for file_id in work.files_to_read if hints.read_file(file_id)]
    train = [job_id for job_id, memory_gib in work.jobs_to_train.items() if hints.train(job_id, memory_gib)]
    generate = [generation_id for generation_id in work.images_to_generate if hints.generate(generation_id)]
    with sessions.begin() as session:
        leases.mark_published(session, FILES, read)
        leases.mark_published(session, JOBS, train)
        leases.mark_published(session, GENERATIONS, generate)
