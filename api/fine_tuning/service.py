"""The rules of fine-tuning jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.datasets.pair_lists import materialise
from api.dependencies import Dependencies
from api.errors.errors import InvalidRequest
from api.errors.field_errors import FieldError
from api.fine_tuning.estimates.estimate import FineTuningJobEstimate, estimate
from api.fine_tuning.estimates.planned import planned
from api.fine_tuning.fields import columns
from api.fine_tuning.references import References, find_references
from api.fine_tuning.request import CreateFineTuningJob, parse
from api.fine_tuning.run_spec import Offer, run_spec
from api.fine_tuning.schemas import (
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobCheckpointList,
    FineTuningJobEvent,
    FineTuningJobEventList,
    FineTuningJobList,
)
from api.fine_tuning.top_level import has_older_form
from api.http.json_body import JsonBody
from api.http.paging import cut
from api.http.transactions import UnitOfWork
from store.blobs.blobs import Blobs
from store.database import read
from store.ids import new_id
from store.job_status import JobStatus
from store.jobs import events, jobs, listing, queue, run_history
from store.jobs.jobs import NewJob
from store.tables.job import Job
from store.tenants import quotas
from store.tenants.api_keys import Principal
from trainer.spec.run import RunSpec

# Longer than any automatic retry of a client waits; a later request with the same body is a new wish.
RETRY_WINDOW = timedelta(minutes=10)


@dataclass(frozen=True)
class Sent:
    """A create request, and what is wrong with its form; what it names is checked together with that."""

    body: JsonBody
    request: CreateFineTuningJob | None
    field_errors: list[FieldError]

    @classmethod
    def of(cls, body: JsonBody) -> Self:
        """Before a transaction is opened: it takes processor time, and no database connection."""
        return cls(body, *parse(body.document))


def create(
    work: UnitOfWork, offer: Offer, blobs: Blobs, caller: Principal, sent: Sent, *, is_retry: bool
) -> FineTuningJob:
    """``is_retry``: the client says that it has sent this before; then the job of that try is the answer."""
    jobs.serialize_request(work.session, caller.key_id, sent.body.sha256)
    if is_retry:
        earlier = jobs.by_request(work.session, caller.key_id, sent.body.sha256, within=RETRY_WINDOW)
        if earlier is not None:
            return _shown(work.session, earlier)
    request, named = _checked(work, offer, caller, sent)
    quotas.require_waiting_job(work.session, caller.project_id, caller.limits)
    for revision in named.revisions:
        materialise(work.session, blobs, revision)
    job = jobs.create(work.session, _new_job(caller, request, named, offer, sent.body))
    return _queued_for_training(work, job)


def dry_run(work: UnitOfWork, offer: Offer, caller: Principal, sent: Sent) -> FineTuningJobEstimate:
    """All that ``create`` checks, and what the job would cost; makes nothing."""
    request, named = _checked(work, offer, caller, sent)
    quotas.require_waiting_job(work.session, caller.project_id, caller.limits)
    new = _new_job(caller, request, named, offer, sent.body)
    spec = RunSpec.model_validate(new.spec)
    held_out = new.validation_file.pairs_count if new.validation_file is not None else 0
    plan = planned(spec, new.training_file.pairs_count, held_out)
    return estimate(plan, run_history.of_base(work.session, spec.base.name))


def _checked(work: UnitOfWork, offer: Offer, caller: Principal, sent: Sent) -> tuple[CreateFineTuningJob, References]:
    """Raises InvalidRequest with every error."""
    named = find_references(work.session, offer.bases, caller.project_id, sent.body.document)
    if sent.request is None or sent.field_errors or named.field_errors:
        raise InvalidRequest([*sent.field_errors, *named.field_errors])
    return sent.request, named


def _new_job(
    caller: Principal, request: CreateFineTuningJob, named: References, offer: Offer, body: JsonBody
) -> NewJob:
    if named.base is None or named.training_file is None:
        raise AssertionError("a request without errors names a base and a training file")
    job_id = new_id("ftjob")
    attributes = columns(request)
    if request.memory_gib is None:
        attributes["memory_gib"] = named.base.memory_gib
    attributes["older_form"] = has_older_form(body.document)
    return NewJob(
        id=job_id,
        project_id=caller.project_id,
        spec=run_spec(request, named.base, offer, job_id).model_dump(mode="json"),
        training_file=named.training_file,
        validation_file=named.validation_file,
        attributes=attributes,
        key_id=caller.key_id,
        request_sha256=body.sha256,
    )


def one(dependencies: Dependencies, project_id: str, job_id: str) -> FineTuningJob:
    row = read(dependencies.reader, lambda connection: jobs.read(connection, project_id, job_id))
    position = dependencies.queue_positions.of(dependencies.reader, _queued([row])).get(job_id)
    return FineTuningJob.of(row, position)


def _queued(rows: Sequence[Job | Row[Any]]) -> list[str]:
    return [row.id for row in rows if row.status == JobStatus.QUEUED]


def cancel(work: UnitOfWork, project_id: str, job_id: str) -> FineTuningJob:
    return FineTuningJob.of(jobs.cancel(work.session, project_id, job_id))


def pause(work: UnitOfWork, project_id: str, job_id: str) -> FineTuningJob:
    return FineTuningJob.of(jobs.pause(work.session, project_id, job_id))


def resume(work: UnitOfWork, project_id: str, job_id: str) -> FineTuningJob:
    return _queued_for_training(work, jobs.resume(work.session, project_id, job_id))


def page(
    dependencies: Dependencies, project_id: str, *, after: str | None, limit: int, metadata: dict[str, str] | None
) -> FineTuningJobList:
    with dependencies.sessions() as session:
        rows = listing.newest_first(session, project_id, after=after, limit=limit + 1, metadata=metadata)
    found, has_more = cut(rows, limit)
    queue_positions = dependencies.queue_positions.of(dependencies.reader, _queued(found))
    data = [FineTuningJob.of(row, queue_positions.get(row.id)) for row in found]
    return FineTuningJobList(data=data, has_more=has_more)


def event_page(
    session: Session, project_id: str, job_id: str, *, after: str | None, limit: int
) -> FineTuningJobEventList:
    job = jobs.get(session, project_id, job_id)
    shown, has_more = cut(events.newest_first(session, job.id, after=after, limit=limit + 1), limit)
    return FineTuningJobEventList(data=[FineTuningJobEvent.of(row) for row in shown], has_more=has_more)


def checkpoint_page(
    session: Session, project_id: str, job_id: str, *, after: str | None, limit: int
) -> FineTuningJobCheckpointList:
    job = jobs.get(session, project_id, job_id)
    shown, has_more = cut(jobs.checkpoints(session, job.id, after=after, limit=limit + 1), limit)
    data = [FineTuningJobCheckpoint.of(row, job) for row in shown]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FineTuningJobCheckpointList(data=data, has_more=has_more, first_id=first, last_id=last)


def _queued_for_training(work: UnitOfWork, job: Job) -> FineTuningJob:
    """The job as clients see it; if it is queued, its hint is published after the commit."""
    if job.status == JobStatus.QUEUED:
        work.jobs_to_train[job.id] = job.memory_gib
    return _shown(work.session, job)


def _shown(session: Session, job: Job) -> FineTuningJob:
    """As the transaction sees it, which has just changed the queue."""
    return FineTuningJob.of(job, queue.positions(session, _queued([job])).get(job.id))
