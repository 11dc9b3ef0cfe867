"""Image features for the reference mismatch: DINOv2 where the operator has it, else pixel statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.evaluation.image_statistics import Vector, energy_coefficient, statistics
from trainer.runtime.errors import BadRun, RunFieldError

DINO_SIDE, DINO_MEAN, DINO_DEVIATION = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_TYPES = ("dinov2", "dinov2_with_registers")


class Features(Protocol):
    @property
    def name(self) -> str: ...

    def vector(self, image: Image.Image) -> Vector:
        """(d,)"""
        ...

    def similarity(self, sampled: Vector, chosen: Vector, pairs: Sequence[int], weights: Vector) -> Vector:
        """At most 1, once for each row of ``weights``.

        Shapes: ``sampled`` and ``chosen`` (n, d), row by row for the same prompt; ``pairs`` (n,) says which pair a row
        is of; ``weights`` (resamples, n) says how often it counts.
        """
        ...


class Dinov2:
    """The class token of DINOv2's last layer (arXiv 2304.07193), as the paper's reference mismatch uses it.

    The mean cosine similarity of each sampled image to the chosen one of its pair. Images are scaled to 224 x 224
    whole: a crop would leave out what users put at the edge, and both images of a pair are distorted alike.
    """

    name = "dinov2"

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises BadRun unless the directory holds a DINOv2 in safetensors."""
        from transformers import AutoConfig, AutoModel

        wanted = "a directory with a DINOv2 model in safetensors"
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise BadRun([RunFieldError("dinov2", folder.name, wanted)])
        kind = AutoConfig.from_pretrained(folder).model_type
        if kind not in DINO_TYPES:
            raise BadRun([RunFieldError("dinov2", f"{folder.name}, of type {kind}", wanted)])
        self.model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32)
        self.model.requires_grad_(False).eval().to(device)
        self.device = device

    @torch.no_grad()
    def vector(self, image: Image.Image) -> Vector:
        token = self.model(pixel_values=_pixels(image).to(self.device)).last_hidden_state[0, 0]
        return np.asarray(token.double().cpu())

    def similarity(self, sampled: Vector, chosen: Vector, _pairs: Sequence[int], weights: Vector) -> Vector:
        lengths = np.linalg.norm(sampled, axis=1) * np.linalg.norm(chosen, axis=1)
        cosines = (sampled * chosen).sum(axis=1) / np.maximum(lengths, 1e-12)
        means: Vector = weights @ cosines / weights.sum(axis=1)
        return means


def _pixels(image: Image.Image) -> Tensor:
    """(1, 3, 224, 224), normalised as DINOv2 was trained."""
    resized = image.convert("RGB").resize((DINO_SIDE, DINO_SIDE), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    mean, deviation = torch.tensor(DINO_MEAN).view(3, 1, 1), torch.tensor(DINO_DEVIATION).view(3, 1, 1)
    return ((values - mean) / deviation)[None]


class Statistics:
    """Colours and edges: nothing to download, the same on every machine and for every base.

    How alike the sampled and the chosen images are as two sets, so that two images of different things in one style
    are no mismatch. It distinguishes styles and palettes, not subjects (docs/decisions/0006-reference-mismatch.md).
    """

    name = "statistics"

    def vector(self, image: Image.Image) -> Vector:
        return statistics(image)

    def similarity(self, sampled: Vector, chosen: Vector, pairs: Sequence[int], weights: Vector) -> Vector:
        return energy_coefficient(sampled, chosen, pairs, weights)
