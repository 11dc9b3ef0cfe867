"""A run directory for the trainer, made from the job's row and blobs, on whatever machine claimed the job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from store.blobs import Blobs
from trainer.spec.manifest import Pair
from trainer.spec.run import RunSpec

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Inputs:
    """What a run is made of. The digests name pair documents (see file_intake); a checkpoint is resumed from."""

    spec: RunSpec
    training_pairs: str
    validation_pairs: str | None
    checkpoint_step: int | None
    checkpoint: Mapping[str, Any]


def prepare(folder: Path, inputs: Inputs, blobs: Blobs, check: Callable[[], None]) -> None:
    """``check`` is called between files and may raise: copying a large data set takes a while."""
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    (folder / "spec.json").write_text(inputs.spec.model_dump_json(indent=2), encoding="utf-8")
    pairs = assign_splits(inputs, blobs)
    with (folder / "data" / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for pair in pairs:
            manifest.write(pair.model_dump_json() + "\n")
    for name in sorted({name for pair in pairs for name in (pair.chosen, pair.rejected)}):
        check()
        blobs.fetch(Path(name).stem, folder / "data" / name)
    if inputs.checkpoint_step is not None:
        _restore_checkpoint(folder / "checkpoints", inputs.checkpoint_step, inputs.checkpoint, blobs)


def assign_splits(inputs: Inputs, blobs: Blobs) -> list[Pair]:
    """A validation file decides; else the pairs' own split; else a share of the prompts, picked by their digest."""
    training = _read_pairs(blobs, inputs.training_pairs)
    if inputs.validation_pairs is not None:
        held_out = _read_pairs(blobs, inputs.validation_pairs)
        return [*_pairs(training, "train", "t"), *_pairs(held_out, "validation", "v")]
    if any(row["split"] == "validation" for row in training):
        return [*_own_splits(training)]
    chosen = _held_out_prompts(training, inputs.spec.validation.share)
    return [_pair(row, "validation" if row["prompt"] in chosen else "train", "t") for row in training]


def _held_out_prompts(rows: Sequence[dict[str, Any]], share: float) -> set[str]:
    """By prompt, so that no prompt is on both sides; at least one, and never all of several."""
    prompts = sorted({row["prompt"] for row in rows}, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
    if len(prompts) < 2:
        return set()
    return set(prompts[: max(1, round(share * len(prompts)))])


def _own_splits(rows: Sequence[dict[str, Any]]) -> Iterator[Pair]:
    return (_pair(row, row["split"] or "train", "t") for row in rows)


def _pairs(rows: Sequence[dict[str, Any]], split: Split, prefix: str) -> Iterator[Pair]:
    return (_pair(row, split, prefix) for row in rows)


def _pair(row: dict[str, Any], split: Split, prefix: str) -> Pair:
    """The id names the file and its row: the trainer's noise is keyed by it, so it must not change between runs."""
    return Pair(
        id=f"{prefix}{row['row']}",
        prompt=row["prompt"],
        chosen=f"images/{row['chosen']}.png",
        rejected=f"images/{row['rejected']}.png",
        split=split,
    )


def _read_pairs(blobs: Blobs, sha256: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in blobs.read(sha256).splitlines()]


def _restore_checkpoint(checkpoints: Path, step: int, manifest: Mapping[str, Any], blobs: Blobs) -> None:
    folder = checkpoints / f"step-{step:08d}"
    for name, entry in manifest.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        blobs.fetch(entry["sha256"], path)
