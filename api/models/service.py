"""The models a project may name: the operator's bases and what its own jobs made."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.http.paging import cut
from api.models.schemas import Model, ModelDeleted, ModelList
from store.base_models import RegisteredBase, find_base
from store.errors import ModelIsBase
from store.jobs import jobs, listing
from store.tables.job import Job


def page(
    session: Session, bases: dict[str, RegisteredBase], project_id: str, *, after: str | None, limit: int
) -> ModelList:
    """The bases in the operator's order come first. Raises CursorUnknown."""
    names = list(bases)
    of_bases = names[names.index(after) + 1 :] if after in bases else names if after is None else []
    rows = listing.fine_tuned(
        session, project_id, after=None if after in bases else after, limit=max(limit + 1 - len(of_bases), 0)
    )
    tuned = [_tuned(job, job.fine_tuned_model) for job in rows if job.fine_tuned_model]
    shown, has_more = cut([*(_base(bases[name]) for name in of_bases), *tuned], limit)
    return ModelList(data=list(shown), has_more=has_more)


def one(session: Session, bases: dict[str, RegisteredBase], project_id: str, name: str) -> Model:
    job = jobs.by_fine_tuned_model(session, project_id, name)
    return _tuned(job, name) if job is not None else _base(find_base(bases, name))


def delete(session: Session, bases: dict[str, RegisteredBase], project_id: str, name: str) -> ModelDeleted:
    if name in bases:
        raise ModelIsBase(name)
    jobs.delete_model(session, project_id, name)
    return ModelDeleted(id=name)


def _base(base: RegisteredBase) -> Model:
    return Model(id=base.name, created=0, owned_by="system")


def _tuned(job: Job, name: str) -> Model:
    finished = job.finished_at or job.created_at
    return Model(id=name, created=int(finished.timestamp()), owned_by=job.project_id)
