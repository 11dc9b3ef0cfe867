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
from trainer.encoding import new_encoder
from trainer.families.family import Decoder, Denoiser
from trainer.interrupt import StopRequest
from trainer.rundir import ImageFile, PairFiles
from trainer.spec.buckets import Bucket

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


@dataclass
class Mean:
    """Family and encoders in one: an image's moments are its mean colour; remembers how many came at once."""

    native_size: int
    size_multiple: int = 8
    num_train_timesteps: int = 1000
    guidance: float = 5.0
    largest_side: int | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    together: list[int] = field(default_factory=list)

    def load_encoders(self, _device: torch.device) -> Mean:
        return self

    def timestep_at(self, share: float) -> float:
        return share

    def load_decoder(self, _device: torch.device) -> Decoder:
        raise AssertionError("nothing is decoded here")

    def load_denoiser(self, _device: torch.device) -> Denoiser:
        raise AssertionError("nothing is denoised here")

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        return [{"hidden": torch.zeros(1)} for _ in prompts]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.together.append(len(pixels))
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        return mean, torch.zeros_like(mean)


class Left(Mean):
    """Sees the left edge alone."""

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean = pixels[:, :1, :1, :1]
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
    family = Mean(native)
    encoder = new_encoder(family, Cache(tmp_path / "cache"), "auto")
    images = [encoder.image(file, encoder.bucket(file)) for file in files]
    encoder.encode(["p"], images, device=CPU, stop=StopRequest(), progress=lambda *_: None)
    assert family.together == together


def test_a_mirrored_image_is_encoded_mirrored_and_apart(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 8, 16))
    image.save(path)
    cache = Cache(tmp_path / "cache")
    encoder = new_encoder(Left(16), cache, "auto")
    file = ImageFile(path, file_sha256(path), (16, 16))
    encoded = encoder.image(file, encoder.bucket(file), may_mirror=True)
    encoder.encode([], [encoded], device=CPU, stop=StopRequest(), progress=lambda *_: None)
    assert encoded.mirror is not None
    assert cache.read(encoded.key)["mean"].item() == pytest.approx(1.0)
    assert cache.read(encoded.mirror.key)["mean"].item() == pytest.approx(-1.0)


def test_a_pairs_first_encoding_is_of_the_chosen_image(tmp_path: Path) -> None:
    files = []
    for colour in ("red", "blue"):
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (16, 16), colour).save(path)
        files.append(ImageFile(path, file_sha256(path), (16, 16)))
    cache = Cache(tmp_path / "cache")
    encoder = new_encoder(Mean(16), cache, "auto")
    pair = encoder.pair(PairFiles("1", "p", chosen=files[0], rejected=files[1]), ["p"])
    encoder.encode(["p"], pair.images, device=CPU, stop=StopRequest(), progress=lambda *_: None)
    red, blue = (cache.read(image.key)["mean"].flatten().tolist() for image in pair.images)
    assert (red, blue) == ([1, -1, -1], [-1, -1, 1])
    alone = encoder.pair(PairFiles("2", "p", chosen=files[0], rejected=None), ["p"])
    assert alone.images == pair.images[:1]


def test_the_resolution_asked_for_replaces_the_bases_own(tmp_path: Path) -> None:
    encoder = new_encoder(Mean(64), Cache(tmp_path), 32)
    square = ImageFile(tmp_path / "x.png", "x", (500, 500))
    assert encoder.bucket(square) == Bucket(32, 32)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
