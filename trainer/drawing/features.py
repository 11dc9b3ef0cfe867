"""What two images are compared by when style is meant: DINOv2 where the operator has it, plain statistics elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.errors import BadRun, Fault

SIDE = 64  # pixels of the statistics' images
DINO_SIDE, DINO_MEAN, DINO_DEVIATION = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(Protocol):
    @property
    def name(self) -> str: ...

    def similarity(self, one: Image.Image, other: Image.Image) -> float:
        """Cosine similarity of the two images' features, -1 to 1."""
        ...


class Dinov2:
    """The class token of DINOv2's last layer (arXiv 2304.07193), as the paper's reference mismatch uses it."""

    name = "dinov2"

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoModel

        if not any(folder.glob("*.safetensors")):
            raise BadRun([Fault("features", str(folder.name), "a directory with a DINOv2 model in safetensors")])
        self.model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32)
        self.model.requires_grad_(False).eval().to(device)
        self.device = device

    @torch.no_grad()
    def similarity(self, one: Image.Image, other: Image.Image) -> float:
        pixels = torch.stack([self._pixels(image) for image in (one, other)]).to(self.device)
        first, second = self.model(pixel_values=pixels).last_hidden_state[:, 0].float().cpu()
        return float(torch.nn.functional.cosine_similarity(first, second, dim=0))

    def _pixels(self, image: Image.Image) -> Tensor:
        resized = image.convert("RGB").resize((DINO_SIDE, DINO_SIDE), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        mean, deviation = torch.tensor(DINO_MEAN).view(3, 1, 1), torch.tensor(DINO_DEVIATION).view(3, 1, 1)
        return (values - mean) / deviation


class Statistics:
    """Colours and edges of an image shrunk to 64 x 64: nothing to download, the same on every machine.

    Three groups, each of unit length, so that none drowns the others: shares of 64 colours (4 levels a channel, square
    roots), edge strength by orientation at three scales, and how light and how colourful 4 x 4 fields are. It
    tells styles and palettes apart, not subjects (docs/decisions/0006-reference-mismatch.md).
    """

    name = "statistics"

    def similarity(self, one: Image.Image, other: Image.Image) -> float:
        groups = zip(_groups(one), _groups(other), strict=True)
        return float(np.mean([_cosine(first, second) for first, second in groups]))


Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _groups(image: Image.Image) -> Sequence[Vector]:
    shrunk = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(shrunk, dtype=np.float64) / 255
    return _colours(pixels), _edges(pixels), _fields(pixels)


def _colours(pixels: Vector) -> Vector:
    levels = np.minimum((pixels * 4).astype(int), 3)
    counts = np.bincount((levels @ np.array([16, 4, 1])).ravel(), minlength=64)
    shares: Vector = np.sqrt(counts / counts.sum())
    return shares


def _edges(pixels: Vector) -> Vector:
    """Gradient magnitude in 8 orientations at full, half and quarter size, and how much of the image is flat."""
    light = pixels @ np.array([0.299, 0.587, 0.114])
    found = []
    for _ in range(3):
        down, right = np.gradient(light)
        strength, direction = np.hypot(down, right), np.arctan2(down, right) % np.pi
        sums = np.bincount((direction / np.pi * 8).astype(int).ravel() % 8, weights=strength.ravel(), minlength=8)
        found.append(np.append(sums / light.size, (strength < 0.02).mean() / 4))
        light = light.reshape(light.shape[0] // 2, 2, light.shape[1] // 2, 2).mean(axis=(1, 3))
    return np.concatenate(found)


def _fields(pixels: Vector) -> Vector:
    fields = pixels.reshape(4, SIDE // 4, 4, SIDE // 4, 3)
    lightness = 1 - fields.mean(axis=(1, 3, 4)).ravel()
    colourfulness = (pixels.max(axis=2) - pixels.min(axis=2)).reshape(4, SIDE // 4, 4, SIDE // 4).mean(axis=(1, 3))
    return np.concatenate([lightness, 2 * colourfulness.ravel(), [0.1]])


def _cosine(one: Vector, other: Vector) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / max(lengths, 1e-12)
