"""Checkpoints: directories that are written atomically, never change, and are verified when read.

``checkpoints/step-00000100/`` holds state.json, tensors.safetensors and metrics.jsonl, and manifest.json with their
SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from trainer.evaluation.held_out import HeldOutLosses
from trainer.runtime.atomic_io import atomic_directory, remove_partial_files
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.training.memory_plan import MemoryPlan
from trainer.training.step import GradientScale

STATE, TENSORS, HISTORY, MANIFEST = "state.json", "tensors.safetensors", "metrics.jsonl", "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")

Weights = Mapping[str, Tensor]


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are not the ones that were written."""


@dataclass(frozen=True)
class BestAdapter:
    """The step with the lowest held-out objective so far, and the adapter it had."""

    step: int
    objective: float
    adapter: Weights


@dataclass(frozen=True)
class ResolvedPlan:
    """What "auto" resolved to: a resumed run uses the same, but plans its memory again on another ``device``.

    ``device`` names all processes' devices with their memory.
    """

    beta: float | None
    device: str
    memory: MemoryPlan


@dataclass(frozen=True)
class TrainingState:
    """All that is needed to resume after ``step``.

    ``run`` is the digest of spec and data; ``optimizer`` is keyed "<parameter>.<state>"; ``base`` is the untrained
    model on the held-out draws; ``validated`` says whether this step was measured on them too; ``plan`` is what
    "auto" resolved to (beta, batch_size); ``metrics_log`` is metrics.jsonl so far; ``gradient_scale`` is of an
    fp16 base.
    """

    run: str
    step: int
    validated: bool
    adapter: Weights
    optimizer: Weights
    base: HeldOutLosses
    best: BestAdapter | None
    plan: ResolvedPlan
    metrics_log: bytes
    gradient_scale: GradientScale = field(default_factory=GradientScale)


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def write_checkpoint(folder: Path, checkpoint: TrainingState) -> Path:
    """Raises DiskFull, leaving what was there. A step that exists already is left as it is."""
    path = path_of(folder, checkpoint.step)
    if path.exists():
        return path
    files = {
        STATE: json.dumps(_state(checkpoint)).encode(),
        TENSORS: save(_tensors(checkpoint)),
        HISTORY: checkpoint.metrics_log,
    }
    files[MANIFEST] = json.dumps({name: _sha256(content) for name, content in files.items()}).encode()
    with atomic_directory(path) as partial:
        for name, content in files.items():
            (partial / name).write_bytes(content)
    return path


def prune(folder: Path, best_step: int | None) -> None:
    """Keep the best, the last, and the one before it, which replaces the last one if that is corrupt."""
    steps = _steps(folder)
    for step in steps[:-2]:
        if step != best_step:
            shutil.rmtree(path_of(folder, step))


def newest_checkpoint(folder: Path, run: str, warn: Callable[[str, str], None]) -> TrainingState | None:
    """The newest one that is whole; damaged ones are set aside with a warning.

    Raises BadRun if it was made by another spec or from other data.
    """
    if folder.exists():
        remove_partial_files(folder)
    for step in reversed(_steps(folder)):
        path = path_of(folder, step)
        try:
            checkpoint = _read(path)
        except CorruptCheckpoint as error:
            aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
            path.rename(aside)
            warn("checkpoint_damaged", f"{path.name} is damaged ({error}) and was set aside as {aside.name}.")
            continue
        if checkpoint.run != run:
            allowed = "spec and data must stay as they were; use another directory, or remove checkpoints/"
            raise BadRun(
                [RunFieldError(f"checkpoints/{path.name}", "made by another spec or from other data", allowed)]
            )
        return checkpoint
    return None


def _steps(folder: Path) -> list[int]:
    if not folder.exists():
        return []
    return sorted(int(match[1]) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name)))


def _read(path: Path) -> TrainingState:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in (STATE, TENSORS, HISTORY)}
    except (OSError, ValueError) as error:
        raise CorruptCheckpoint(str(error)) from error
    for name, content in files.items():
        if manifest.get(name) != _sha256(content):
            raise CorruptCheckpoint(f"{name} does not match its SHA-256")
    return _parse(json.loads(files[STATE]), load(files[TENSORS]), files[HISTORY])


def _state(checkpoint: TrainingState) -> dict[str, object]:
    best = checkpoint.best
    return {
        "run": checkpoint.run,
        "step": checkpoint.step,
        "validated": checkpoint.validated,
        "held_out_pairs": checkpoint.base.pairs,
        "timesteps": checkpoint.base.timesteps,
        "settled": asdict(checkpoint.plan),
        "gradient_scale": asdict(checkpoint.gradient_scale),
        "best": None if best is None else {"step": best.step, "objective": best.objective},
    }


def _tensors(checkpoint: TrainingState) -> dict[str, Tensor]:
    groups: dict[str, Weights] = {
        "adapter": checkpoint.adapter,
        "optimizer": checkpoint.optimizer,
        "base": {"chosen": checkpoint.base.chosen, "rejected": checkpoint.base.rejected},
        "best": checkpoint.best.adapter if checkpoint.best else {},
    }
    return {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()  # safetensors rejects shared memory
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def _parse(state: dict[str, Any], tensors: Mapping[str, Tensor], metrics_log: bytes) -> TrainingState:
    groups: dict[str, dict[str, Tensor]] = {"adapter": {}, "optimizer": {}, "base": {}, "best": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = tensor
    best = state["best"]
    return TrainingState(
        run=state["run"],
        step=state["step"],
        validated=state["validated"],
        adapter=groups["adapter"],
        optimizer=groups["optimizer"],
        base=HeldOutLosses(tuple(state["held_out_pairs"]), tuple(state["timesteps"]), **groups["base"]),
        best=BestAdapter(best["step"], best["objective"], groups["best"]) if best else None,
        plan=ResolvedPlan(**state["settled"] | {"memory": MemoryPlan(**state["settled"]["memory"])}),
        metrics_log=metrics_log,
        gradient_scale=GradientScale(**state.get("gradient_scale", {})),  # older checkpoints have none
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
