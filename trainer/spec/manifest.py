"""The dataset manifest, ``data/manifest.jsonl``: one line per pair, image paths relative to ``data/``."""

from __future__ import annotations

from typing import Literal

from trainer.spec.strict import Strict


class ManifestPair(Strict):
    """Without ``rejected``, the base samples it before training."""

    id: str
    prompt: str
    chosen: str
    rejected: str | None = None
    split: Literal["train", "validation"]
