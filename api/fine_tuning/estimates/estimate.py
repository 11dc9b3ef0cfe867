"""What a job would cost: by what others like it have cost here, else estimated from the size of its network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.fine_tuning.estimates.flops_estimate import estimate_from_flops
from api.fine_tuning.estimates.planned import Planned
from store.jobs.run_history import MeasuredRun
from trainer.spec.resolved import Resolved

UNREAD = "the files decide the steps, and are not read yet: ask again when they are"
SPREAD = 4  # how far such an estimate may be off, either way


class FineTuningJobEstimate(BaseModel):
    """What `dry_run` answers. `basis` says whether it was measured on this installation or estimated from sizes."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "fine_tuning.job.estimate",
                "model": "emoji-xl",
                "method": "mapo",
                "pairs": 240,
                "steps": 150,
                "seconds": 210,
                "seconds_low": 195,
                "seconds_high": 240,
                "peak_memory_bytes": 2147483648,
                "disk_bytes": 31457280,
                "device": "cpu",
                "measured_runs": 3,
                "basis": "measured on 3 jobs of mapo on emoji-xl",
            }
        }
    )

    object: Literal["fine_tuning.job.estimate"] = "fine_tuning.job.estimate"
    model: str
    method: str
    pairs: int | None = Field(description="Of the files, validation included; null until they are read.")
    steps: int | None = Field(description="Null where the files decide it and are not read yet; the seconds too then.")
    seconds: int | None = Field(
        description="From a worker's claim to the end, by the median of the measured jobs; low and high are theirs."
    )
    seconds_low: int | None
    seconds_high: int | None
    peak_memory_bytes: int = Field(
        description="Of the device, or of the trainer on a CPU: the highest measured, scaled up by batch and pixels."
    )
    disk_bytes: int = Field(description="That results and checkpoints take; workers cache more for themselves.")
    device: str | None = Field(description="Where the measured jobs ran: the newest one's; null without any.")
    measured_runs: int
    basis: str = Field(description="What the numbers follow from, in words.")


def estimate(plan: Planned, runs: Sequence[MeasuredRun]) -> FineTuningJobEstimate:
    """``runs`` of the same base, newest first."""
    base, method = plan.spec.base.name, plan.spec.method.type
    alike = _alike(plan, runs)
    if not alike:
        return _from_flops(plan, f"no measured run of {base} here" + (" at this resolution" if runs else ""))
    seconds = sorted(_seconds(plan, plan.resolved, run, alike) for run in alike) if plan.resolved else []
    jobs = f"{len(alike)} job{'s' if len(alike) > 1 else ''}"
    measured = sorted({run.method for run in alike})
    basis = f"measured on {jobs} of {method} on {base}"
    if measured != [method]:
        basis = f"no measured run of {method} on {base}: rough estimate from {jobs} of {', '.join(measured)}"
    return FineTuningJobEstimate(
        model=base,
        method=method,
        pairs=plan.pairs,
        steps=plan.resolved.max_steps if plan.resolved else None,
        seconds=round(median(seconds)) if seconds else None,
        seconds_low=math.floor(seconds[0]) if seconds else None,
        seconds_high=math.ceil(seconds[-1]) if seconds else None,
        peak_memory_bytes=round(max(_peak(plan, run, alike) for run in alike)),
        disk_bytes=round(median(_disk(plan, run) for run in alike)),
        device=alike[0].device,
        measured_runs=len(alike),
        basis=basis if plan.resolved else f"{basis}; {UNREAD}",
    )


def _from_flops(plan: Planned, reason: str) -> FineTuningJobEstimate:
    """``reason``: why it is not measured."""
    found = estimate_from_flops(plan)
    seconds = found.seconds
    return FineTuningJobEstimate(
        model=plan.spec.base.name,
        method=plan.spec.method.type,
        pairs=plan.pairs,
        steps=plan.resolved.max_steps if plan.resolved else None,
        seconds=math.ceil(seconds) if seconds is not None else None,
        seconds_low=math.floor(seconds / SPREAD) if seconds is not None else None,
        seconds_high=math.ceil(seconds * SPREAD) if seconds is not None else None,
        peak_memory_bytes=round(found.peak_memory_bytes),
        disk_bytes=round(found.disk_bytes),
        device=None,
        measured_runs=0,
        basis=f"{reason}: {found.basis}" + ("" if plan.resolved else f"; {UNREAD}"),
    )


def _alike(plan: Planned, runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """Of the newest one's device; of the same method where there are any; comparable in size."""
    own = [run for run in runs if run.method == plan.spec.method.type] or list(runs)
    here = [run for run in own if run.device == own[0].device] if own else []
    if plan.spec.data.resolution == "auto" and not any(_is_native(run) for run in here):
        return []
    return here


def _is_native(run: MeasuredRun) -> bool:
    return bool(run.spec.get("data", {}).get("resolution", "auto") == "auto")


def _pixels(plan: Planned, run: MeasuredRun, alike: Sequence[MeasuredRun]) -> float:
    """How many times the measured run's. The base's own size is what runs of it had."""
    resolution = plan.spec.data.resolution
    if resolution == run.spec.get("data", {}).get("resolution", "auto"):
        return 1.0
    wanted = median(one.pixels for one in alike if _is_native(one)) if resolution == "auto" else resolution**2
    return wanted / run.pixels


def _seconds(plan: Planned, resolved: Resolved, run: MeasuredRun, alike: Sequence[MeasuredRun]) -> float:
    """Training grows with steps, pairs of a step and pixels, caching with pairs and pixels, and the rest stays."""
    pixels = _pixels(plan, run, alike)
    steps = resolved.max_steps * resolved.effective_batch_size / (run.steps * run.effective_batch_size)
    pairs = plan.pairs / run.pairs if plan.pairs is not None else 1.0
    rest = run.seconds - run.training_seconds - run.caching_seconds
    return rest + run.training_seconds * steps * pixels + run.caching_seconds * pairs * pixels


def _peak(plan: Planned, run: MeasuredRun, alike: Sequence[MeasuredRun]) -> float:
    """At least the measured one's: a part of it, unknown how much, does not shrink with the batch."""
    wanted = plan.spec.method.hyperparameters.batch_size
    measured = run.spec["method"][run.method]["hyperparameters"].get("batch_size", "auto")
    batch = wanted / measured if isinstance(wanted, int) and isinstance(measured, int) else 1.0
    return run.peak_memory_bytes * max(1.0, batch * _pixels(plan, run, alike))


def _disk(plan: Planned, run: MeasuredRun) -> float:
    """An adapter's size goes by its rank."""
    rank: int = run.spec.get("adapter", {}).get("rank", plan.spec.adapter.rank)
    return (run.result_bytes + run.checkpoint_bytes * plan.checkpoints) * plan.spec.adapter.rank / rank
