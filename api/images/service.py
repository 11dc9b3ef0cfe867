"""Image generations: what a request queues, and what its answer says."""

from __future__ import annotations

import base64
import secrets
from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.errors.errors import GenerationCancelled, GenerationFailed, GenerationQueued, GenerationRunning, InvalidRequest
from api.errors.field_errors import FieldError
from api.http.json_body import JsonBody
from api.http.transactions import UnitOfWork
from api.images.generation_model import GenerationModel, find
from api.images.request import CreateImage, Form
from api.images.schemas import DrawnImage, GenerationError, ImageGeneration, ImagesResponse
from store.base_models import RegisteredBase
from store.blobs.blobs import Blobs
from store.errors import ImageNotFound
from store.generations import generations
from store.generations.generations import NewGeneration
from store.jobs import jobs
from store.tables.generation import Generation, GenerationStatus
from store.tenants import quotas
from store.tenants.api_keys import Principal
from trainer.spec.sample_spec import MAX_SEED, SampleOptions, SampleSpec

# Longer than a client retries automatically; a later request with the same body starts a new generation.
RETRY_WINDOW = timedelta(minutes=30)


class Accepted(BaseModel):
    """The stored answer of an idempotency key: the images themselves may be large."""

    id: str


def begin(
    work: UnitOfWork,
    bases: dict[str, RegisteredBase],
    caller: Principal,
    body: JsonBody,
    checked: tuple[CreateImage | None, list[FieldError]],
    *,
    is_retry: bool,
) -> Accepted:
    """Queue the generation. ``is_retry``: the client has sent this before; the earlier generation is then reused."""
    jobs.serialize_request(work.session, caller.key_id, body.sha256)
    if is_retry:
        earlier = generations.by_request(work.session, caller.key_id, body.sha256, within=RETRY_WINDOW)
        if earlier is not None:
            return Accepted(id=earlier.id)
    request, field_errors = checked
    model, unusable = find(work.session, bases, caller.project_id, body.document.get("model"))
    if request is None or model is None or field_errors:
        raise InvalidRequest([*field_errors, *unusable])
    spec = _spec(request, model).model_dump(mode="json")
    new = NewGeneration(caller.project_id, request.model, spec, model.weights, caller.key_id, body.sha256)
    quotas.require_waiting_generation(work.session, caller.project_id, caller.limits)
    row = generations.create(work.session, new)
    work.images_to_generate.append(row.id)
    return Accepted(id=row.id)


def _spec(request: CreateImage, model: GenerationModel) -> SampleSpec:
    options = {name: getattr(request, name) for name in SampleOptions.model_fields}
    width, height = request.sides or (None, None)
    seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
    return SampleSpec.model_validate({**options, **model.spec, "seed": seed, "width": width, "height": height})


def answer(row: Generation, blobs: Blobs, origin: str, form: Form) -> ImagesResponse:
    """Raises GenerationQueued, GenerationRunning, GenerationFailed, GenerationCancelled; InvalidRequest where the
    request was wrong."""
    if row.status == GenerationStatus.QUEUED:
        raise GenerationQueued(row.id)
    if row.status == GenerationStatus.RUNNING:
        raise GenerationRunning(row.id)
    found = generation(row, blobs, origin, form)
    if found.error is not None and found.error.param is not None:
        raise InvalidRequest([FieldError(found.error.param, f"{found.error.message}.", found.error.code)])
    if found.status == "cancelled":
        raise GenerationCancelled(row.id)
    if found.error is not None:
        raise GenerationFailed(row.id, found.error.message)
    answer = found.model_dump(include=set(ImagesResponse.model_fields))
    return ImagesResponse.model_validate(answer | {"created": found.finished_at})


def generation(row: Generation, blobs: Blobs, origin: str, form: Form) -> ImageGeneration:
    """``origin`` is the scheme and host of the images' URLs."""
    spec, result = SampleSpec.model_validate(row.spec), row.result or {}
    width, height = result.get("width", spec.width), result.get("height", spec.height)
    return ImageGeneration(
        id=row.id,
        created_at=int(row.created_at.timestamp()),
        finished_at=int(row.finished_at.timestamp()) if row.finished_at else None,
        status="cancelled" if generations.is_cancelled(row) else GenerationStatus(row.status).value,
        model=row.model,
        size=f"{width}x{height}" if width else "auto",
        guidance=result.get("guidance", spec.guidance),
        seconds=result.get("seconds"),
        data=_images(row, spec, blobs, origin, form),
        error=GenerationError.model_validate(row.error) if row.error else None,
        **spec.model_dump(include={"prompt", "negative_prompt", "n", "seed", "steps", "adapter_scale"}),
    )


def _images(row: Generation, spec: SampleSpec, blobs: Blobs, origin: str, form: Form) -> list[DrawnImage]:
    stored = (row.result or {}).get("images", [])
    if form == "url":
        urls = [f"{origin}/v1/images/generations/{row.id}/images/{index}" for index in range(len(stored))]
        return [DrawnImage(url=url, seed=seed) for url, seed in zip(urls, spec.seeds, strict=False)]
    contents = [base64.b64encode(blobs.read(image["sha256"])).decode("ascii") for image in stored]
    return [DrawnImage(b64_json=content, seed=seed) for content, seed in zip(contents, spec.seeds, strict=False)]


def image(session: Session, project_id: str, generation_id: str, index: int) -> str:
    """SHA-256 of one image. Raises GenerationNotFound, ImageNotFound."""
    row = generations.get(session, project_id, generation_id)
    stored = (row.result or {}).get("images", [])
    if index >= len(stored):
        raise ImageNotFound(f"{generation_id}/images/{index}")
    sha256: str = stored[index]["sha256"]
    return sha256
