"""The model that a generation names: a base, and the adapter's files on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from api.errors.field_errors import FieldError
from api.errors.table import row_of
from store.base_models import RegisteredBase
from store.errors import JobNotFound, ModelNotFound
from store.files import files
from store.jobs import jobs
from store.jobs.job_leases import fine_tuned_model_name
from store.tables.base import Json
from store.tables.job import Job

# A run's files that hold its adapter: in its results, and in a checkpoint.
EXPORTED = ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors")
CHECKPOINTED = "tensors.safetensors"
CHECKPOINT = ":ckpt-step-"  # between the model's name and the step


@dataclass(frozen=True)
class GenerationModel:
    """``spec`` are the fields of a SampleSpec that the model decides; ``weights`` maps its files to their blobs."""

    spec: Json
    weights: dict[str, str]


def find(
    session: Session, bases: dict[str, RegisteredBase], project_id: str, name: object
) -> tuple[GenerationModel | None, list[FieldError]]:
    """The model, or what is wrong with its name. A name that is no text is reported by the check of the form."""
    if not isinstance(name, str):
        return None, []
    tuned = jobs.by_fine_tuned_model(session, project_id, name)
    if tuned is not None:
        return _exported(session, tuned)
    checkpoint = _checkpoint(session, project_id, name)
    if checkpoint is not None:
        return checkpoint, []
    if name in bases:
        return GenerationModel({"base": bases[name].pinned()}, {}), []
    available = ", ".join(sorted(bases))
    error = ModelNotFound(name)
    message = f"model: {error} Available base models: {available}; GET /v1/models lists the fine-tuned ones."
    return None, [FieldError("model", message, row_of(error).code)]


def _exported(session: Session, job: Job) -> tuple[GenerationModel | None, list[FieldError]]:
    results = {file.filename: file for file in files.by_ids(session, job.result_files) if file.filename in EXPORTED}
    deleted = [file.id for file in results.values() if file.deleted_at is not None]
    if deleted or EXPORTED[0] not in results:
        message = f"model: the adapter file of {job.fine_tuned_model} was deleted; use one of its checkpoints."
        return None, [FieldError("model", message, "adapter_deleted")]
    weights = {name: file.sha256 for name, file in results.items()}
    return GenerationModel(_adapted(job, "export"), weights), []


def _checkpoint(session: Session, project_id: str, name: str) -> GenerationModel | None:
    model, _, step = name.rpartition(CHECKPOINT)
    if not model or not step.isascii() or not step.isdigit() or len(step) > 9:
        return None
    try:
        job = jobs.get(session, project_id, f"ftjob-{model.rpartition(':')[2]}")
    except JobNotFound:
        return None
    found = jobs.checkpoint_at(session, job.id, int(step)) if fine_tuned_model_name(job) == model else None
    if found is None or CHECKPOINTED not in found.manifest:
        return None
    return GenerationModel(_adapted(job, "checkpoint"), {CHECKPOINTED: found.manifest[CHECKPOINTED]["sha256"]})


def _adapted(job: Job, weights: Literal["export", "checkpoint"]) -> Json:
    """The base and precision that the adapter was trained on, whatever the operator's list says now."""
    precision = job.spec.get("compute", {}).get("base_precision", "auto")
    adapter = job.spec.get("adapter", {})
    return {"base": job.spec["base"], "adapter": adapter, "weights": weights, "base_precision": precision}
