"""``data/manifest.jsonl`` of a run directory: one line per pair, image paths relative to ``data/``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from trainer.spec.methods import Strict


class Pair(Strict):
    id: str
    prompt: str
    chosen: str
    rejected: str
    split: Literal["train", "validation"]


def read_manifest(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Pair.model_validate_json(line)
