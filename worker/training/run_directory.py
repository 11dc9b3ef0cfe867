"""A run directory for the trainer, made from the job's row and blobs, on whatever machine claimed the job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intake.pairs import Split
from store.blobs.blobs import Blobs
from trainer.spec.manifest import ManifestPair
from trainer.spec.run import RunSpec


@dataclass(frozen=True)
class Inputs:
    """What a run is made of. The digests name pair documents (see file_intake); a checkpoint is resumed from."""

    spec: RunSpec
    training_pairs: str
    validation_pairs: str | None
    checkpoint_step: int | None
    checkpoint: Mapping[str, Any]


def prepare(folder: Path, inputs: Inputs, blobs: Blobs, check: Callable[[], None]) -> list[ManifestPair]:
    """The pairs; ``check`` is called between files and may raise: copying a large dataset takes a while."""
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    # What the row says and no more: the trainer's digest of it must not change with this version's defaults.
    spec = inputs.spec.model_dump_json(indent=2, exclude_unset=True)
    (folder / "spec.json").write_text(spec, encoding="utf-8")
    pairs = assign_splits(inputs, blobs)
    with (folder / "data" / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for pair in pairs:
            manifest.write(pair.model_dump_json() + "\n")
    for name in sorted({name for pair in pairs for name in (pair.chosen, pair.rejected) if name is not None}):
        check()
        blobs.fetch(Path(name).name, folder / "data" / name)
    if inputs.checkpoint_step is not None:
        _restore_checkpoint(folder / "checkpoints", inputs.checkpoint_step, inputs.checkpoint, blobs)
    return pairs


def assign_splits(inputs: Inputs, blobs: Blobs) -> list[ManifestPair]:
    """What the data says of its split; where it says nothing all is "train", and the trainer holds out a share.

    Rows that the training file marks "validation" are never trained on, even if there is a validation file.
    """
    seen: Counter[str] = Counter()
    pairs = [_pair(row, row["split"] or "train", "t", seen) for row in _read_pairs(blobs, inputs.training_pairs)]
    if inputs.validation_pairs is not None:
        pairs += [_pair(row, "validation", "v", seen) for row in _read_pairs(blobs, inputs.validation_pairs)]
    return pairs


def _pair(row: dict[str, Any], split: Split, prefix: str, seen: Counter[str]) -> ManifestPair:
    """The id names the file and its row: the trainer's noise is keyed by it, so it must not change between runs.

    A row may make several pairs (a tie in both orders, several annotators): from the second on they are numbered.
    """
    name = f"{prefix}{row['row']}"
    seen[name] += 1
    return ManifestPair(
        id=name if seen[name] == 1 else f"{name}.{seen[name]}",
        prompt=row["prompt"],
        chosen=f"images/{row['chosen']}",
        rejected=f"images/{row['rejected']}" if row["rejected"] is not None else None,
        split=split,
        weight=row.get("weight") or 1.0,
        seed=row.get("seed"),
    )


def _read_pairs(blobs: Blobs, sha256: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in blobs.read(sha256).splitlines()]


def _restore_checkpoint(checkpoints: Path, step: int, manifest: Mapping[str, Any], blobs: Blobs) -> None:
    folder = checkpoints / f"step-{step:08d}"
    for name, entry in manifest.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        blobs.fetch(entry["sha256"], path)
