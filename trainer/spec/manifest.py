"""The dataset manifest, ``data/manifest.jsonl``: one line per pair, image paths relative to ``data/``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.strict import Strict


class ManifestPair(Strict):
    """Without ``rejected``, the base samples it before training.

    ``weight`` is the pair's in the loss, relative to the others'. ``seed`` is the noise that the pair's images were
    generated from, if they were: no method uses it yet.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str | None = None
    split: Literal["train", "validation"]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
