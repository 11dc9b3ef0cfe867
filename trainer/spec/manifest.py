"""``data/manifest.jsonl`` of a run directory: one line per pair, image paths relative to ``data/``."""

from __future__ import annotations

from typing import Literal

from trainer.spec.methods import Strict


class Pair(Strict):
    id: str
    prompt: str
    chosen: str
    rejected: str
    split: Literal["train", "validation"]
