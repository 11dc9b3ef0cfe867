"""Image generations as their owner sees them. Nothing here commits. For workers: see generation_leases."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from store.errors import GenerationNotFound
from store.ids import new_id
from store.tables.base import Json
from store.tables.generation import CANCELLED, Generation, GenerationStatus


@dataclass(frozen=True)
class NewGeneration:
    """``spec`` is a SampleSpec as JSON; ``weights`` maps the adapter's files to their blobs."""

    project_id: str
    model: str
    spec: Json
    weights: Mapping[str, str]
    key_id: str
    request_sha256: str


def create(session: Session, new: NewGeneration) -> Generation:
    row = Generation(
        id=new_id("imggen"),
        project_id=new.project_id,
        status=GenerationStatus.QUEUED,
        model=new.model,
        spec=new.spec,
        weights=dict(new.weights),
        key_id=new.key_id,
        request_sha256=new.request_sha256,
    )
    session.add(row)
    session.flush()
    return row


def by_request(session: Session, key_id: str, request_sha256: str, *, within: timedelta) -> Generation | None:
    """The newest that this key requested with this body, no longer ago than ``within``."""
    query = select(Generation).where(
        Generation.key_id == key_id,
        Generation.request_sha256 == request_sha256,
        Generation.created_at > func.now() - within,
        Generation.deleted_at.is_(None),
    )
    return session.scalar(query.order_by(Generation.id.desc()).limit(1))


def get(session: Session, project_id: str, generation_id: str) -> Generation:
    row = session.scalar(_one(project_id, generation_id))
    if row is None:
        raise GenerationNotFound(generation_id)
    return row


def cancel(session: Session, project_id: str, generation_id: str) -> Generation:
    """At once if no worker has it; otherwise its worker ends it. One that has ended stays as it is."""
    row = _locked(session, project_id, generation_id)
    if row.status == GenerationStatus.QUEUED:
        row.status, row.finished_at = GenerationStatus.FAILED, session.scalar(select(func.clock_timestamp()))
        row.error = {"code": CANCELLED, "message": "It was cancelled.", "param": None}
    elif row.status == GenerationStatus.RUNNING:
        row.cancel_requested = True
    session.flush()
    return row


def delete(session: Session, project_id: str, generation_id: str) -> None:
    """Hide it from its owner, and cancel it if it has not ended; its row and its images go later."""
    row = cancel(session, project_id, generation_id)
    row.deleted_at = session.scalar(select(func.now()))


def is_cancelled(row: Generation) -> bool:
    return (row.error or {}).get("code") == CANCELLED


def ended(session: Session, generation_ids: Collection[str]) -> set[str]:
    """Of these, the ones that nothing more will happen to."""
    live = (GenerationStatus.QUEUED, GenerationStatus.RUNNING)
    query = select(Generation.id).where(Generation.id.in_(generation_ids), Generation.status.not_in(live))
    return set(session.scalars(query))


def _one(project_id: str, generation_id: str) -> Select[Generation]:
    own = (Generation.id == generation_id, Generation.project_id == project_id)
    return select(Generation).where(*own, Generation.deleted_at.is_(None))


def _locked(session: Session, project_id: str, generation_id: str) -> Generation:
    row = session.scalar(_one(project_id, generation_id).with_for_update())
    if row is None:
        raise GenerationNotFound(generation_id)
    return row
