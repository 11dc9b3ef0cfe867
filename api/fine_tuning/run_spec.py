"""A checked request and what the operator offers, as the specification that a job's row holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from api.errors.errors import InvalidRequest
from api.errors.field_errors import describe
from api.fine_tuning.naming import adapter_name
from api.fine_tuning.request import CreateFineTuningJob
from store.base_models import RegisteredBase
from trainer.spec.run import Base, RunSpec, TrainingOptions


@dataclass(frozen=True)
class Offer:
    """What the operator gives to runs: base models, and a DINOv2 directory to measure the reference mismatch with."""

    bases: dict[str, RegisteredBase]
    dinov2: Path | None


def run_spec(request: CreateFineTuningJob, base: RegisteredBase, offer: Offer, job_id: str) -> RunSpec:
    """Raises InvalidRequest for options that cannot be had on this base."""
    options = {name: getattr(request, name) for name in TrainingOptions.model_fields}
    try:
        return RunSpec(
            **options,
            base=Base.model_validate(base.pinned()),
            name=adapter_name(request.suffix, request.method, job_id),
            dinov2=str(offer.dinov2.resolve()) if offer.dinov2 else None,
        )
    except ValidationError as error:
        raise InvalidRequest(describe(error, options, RunSpec)) from error
