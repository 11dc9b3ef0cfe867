"""/v1/fine_tuning/jobs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse

from api.audit.actor import By
from api.dependencies import Caller, Injected
from api.errors.responses import BODY, DISK_ERRORS, ONCE, failures
from api.fine_tuning import service
from api.fine_tuning.estimates.estimate import FineTuningJobEstimate
from api.fine_tuning.metadata_filter import PARAMETER, MetadataFilter
from api.fine_tuning.request import CreateFineTuningJob
from api.fine_tuning.run_spec import Offer
from api.fine_tuning.schemas import (
    FineTuningJob,
    FineTuningJobCheckpointList,
    FineTuningJobDeleted,
    FineTuningJobEventList,
    FineTuningJobList,
)
from api.http.free_space import require_free_space
from api.http.idempotency import IdempotencyKey, once
from api.http.json_body import ParsedBody
from api.http.paging import After
from api.http.route_rules import requires
from api.http.transactions import transaction
from store.errors import CursorUnknown, FileInUse, IllegalTransition, JobNotFound, QuotaExceeded
from store.jobs import jobs
from store.roles import Role
from store.tenants import audit

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
CREATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{CreateFineTuningJob.__name__}"}}},
    }
}
RetryCount = Annotated[
    str, Header(description="Set by the openai SDK. Above 0, a create with the same body is never run twice.")
]


@router.post(
    "",
    operation_id="createFineTuningJob",
    dependencies=[Depends(require_free_space)],
    response_model=FineTuningJob | FineTuningJobEstimate,
    responses=failures(*BODY, *ONCE, *DISK_ERRORS, QuotaExceeded),
    openapi_extra=CREATE_BODY,
)
@requires(Role.MEMBER)
def create_job(
    body: ParsedBody,
    caller: Caller,
    dependencies: Injected,
    idempotency_key: IdempotencyKey = None,
    x_stainless_retry_count: RetryCount = "0",
) -> FineTuningJob | FineTuningJobEstimate | JSONResponse:
    """Start a fine-tuning job, or with `dry_run` estimate its cost. Every error of the request is reported at
    once."""
    offer = Offer(dependencies.bases, dependencies.settings.dinov2)
    is_retry = x_stainless_retry_count not in ("", "0")
    sent = service.Sent.of(body)
    with transaction(dependencies) as work:
        if body.document.get("dry_run") is True:
            return service.dry_run(work, offer, caller, sent)
        create = partial(service.create, work, offer, dependencies.blobs, caller, sent, is_retry=is_retry)
        return once(work, caller, idempotency_key, "createFineTuningJob", body.sha256, create)


@router.get("", operation_id="listFineTuningJobs", responses=failures(CursorUnknown), openapi_extra=PARAMETER)
@requires(Role.READ_ONLY)
def list_jobs(
    caller: Caller,
    dependencies: Injected,
    metadata: MetadataFilter,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FineTuningJobList:
    """The project's jobs, newest first."""
    return service.page(dependencies, caller.project_id, after=after, limit=limit, metadata=metadata)


@router.get("/{fine_tuning_job_id}", operation_id="retrieveFineTuningJob", responses=failures(JobNotFound))
@requires(Role.READ_ONLY)
def retrieve_job(fine_tuning_job_id: str, caller: Caller, dependencies: Injected) -> FineTuningJob:
    """One job."""
    return service.one(dependencies, caller.project_id, fine_tuning_job_id)


@router.delete(
    "/{fine_tuning_job_id}",
    operation_id="deleteFineTuningJob",
    responses=failures(JobNotFound, IllegalTransition, FileInUse),
)
@requires(Role.MEMBER)
def delete_job(fine_tuning_job_id: str, caller: Caller, by: By, dependencies: Injected) -> FineTuningJobDeleted:
    """Delete a job that has ended, with its events, checkpoints, samples, model and result files. An addition."""
    with transaction(dependencies) as work:
        jobs.delete(work.session, caller.project_id, fine_tuning_job_id)
        audit.record(work.session, by, "job.deleted", fine_tuning_job_id)
    return FineTuningJobDeleted(id=fine_tuning_job_id)


@router.post(
    "/{fine_tuning_job_id}/cancel",
    operation_id="cancelFineTuningJob",
    responses=failures(JobNotFound, IllegalTransition),
)
@requires(Role.MEMBER)
def cancel_job(fine_tuning_job_id: str, caller: Caller, dependencies: Injected) -> FineTuningJob:
    """Cancel a job; a running one gets a request to stop and becomes `cancelled` shortly after."""
    with transaction(dependencies) as work:
        return service.cancel(work, caller.project_id, fine_tuning_job_id)


@router.post(
    "/{fine_tuning_job_id}/pause", operation_id="pauseFineTuningJob", responses=failures(JobNotFound, IllegalTransition)
)
@requires(Role.MEMBER)
def pause_job(fine_tuning_job_id: str, caller: Caller, dependencies: Injected) -> FineTuningJob:
    """Pause a queued or running job; a running one writes a checkpoint first."""
    with transaction(dependencies) as work:
        return service.pause(work, caller.project_id, fine_tuning_job_id)


@router.post(
    "/{fine_tuning_job_id}/resume",
    operation_id="resumeFineTuningJob",
    responses=failures(JobNotFound, IllegalTransition),
)
@requires(Role.MEMBER)
def resume_job(fine_tuning_job_id: str, caller: Caller, dependencies: Injected) -> FineTuningJob:
    """Queue a paused job again; it goes on from its last checkpoint."""
    with transaction(dependencies) as work:
        return service.resume(work, caller.project_id, fine_tuning_job_id)


@router.get(
    "/{fine_tuning_job_id}/events", operation_id="listFineTuningEvents", responses=failures(CursorUnknown, JobNotFound)
)
@requires(Role.READ_ONLY)
def list_events(
    fine_tuning_job_id: str,
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> FineTuningJobEventList:
    """What happened to the job, newest first."""
    with transaction(dependencies) as work:
        return service.event_page(work.session, caller.project_id, fine_tuning_job_id, after=after, limit=limit)


@router.get(
    "/{fine_tuning_job_id}/checkpoints",
    operation_id="listFineTuningJobCheckpoints",
    responses=failures(CursorUnknown, JobNotFound),
)
@requires(Role.READ_ONLY)
def list_checkpoints(
    fine_tuning_job_id: str,
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> FineTuningJobCheckpointList:
    """The job's checkpoints with their held-out metrics, newest first."""
    with transaction(dependencies) as work:
        return service.checkpoint_page(work.session, caller.project_id, fine_tuning_job_id, after=after, limit=limit)
