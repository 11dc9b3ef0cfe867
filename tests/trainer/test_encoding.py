"""The caching phase apart from any real encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from trainer.cache import Cache, Tensors
from trainer.encoding import encode
from trainer.families.family import Denoiser
from trainer.interrupt import StopRequest
from trainer.rundir import ImageFile, PairFiles

pytestmark = pytest.mark.unit


@dataclass
class Mean:
    """Family and encoders in one: an image's moments are its mean colour; remembers how many came at once."""

    native_size: int
    size_multiple: int = 8
    num_train_timesteps: int = 1000
    fingerprint: dict[str, Any] = field(default_factory=dict)
    together: list[int] = field(default_factory=list)

    def load_encoders(self, _device: torch.device) -> Mean:
        return self

    def load_denoiser(self, _device: torch.device) -> Denoiser:
        raise AssertionError("nothing is denoised here")

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        return [{"hidden": torch.zeros(1)} for _ in prompts]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.together.append(len(pixels))
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        return mean, torch.zeros_like(mean)


@pytest.mark.parametrize(
    ("native", "together"), [(64, [8, 2]), (512, [8, 2]), (1024, [2, 2, 2, 2, 2]), (2048, [1] * 10)]
)
def test_fewer_images_go_through_the_encoder_together_the_larger_they_are(
    tmp_path: Path, native: int, together: list[int]
) -> None:
    files = []
    for index in range(10):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
        files.append(ImageFile(path, file_sha256(path), (8, 8)))
    pairs = [PairFiles(str(index), "p", files[2 * index], files[2 * index + 1]) for index in range(5)]
    family = Mean(native)
    encode(
        family,
        Cache(tmp_path / "cache"),
        pairs,
        [],
        device=torch.device("cpu"),
        stop=StopRequest(),
        progress=lambda *_: None,
    )
    assert family.together == together


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
