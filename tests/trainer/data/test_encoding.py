"""The caching phase apart from any real encoder."""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.api.polling import until
from trainer.cache.cache import Cache, Tensors
from trainer.data.encoding import (
    GROUPS_AHEAD,
    CachingEncoder,
    EncodedImage,
    decoded_ahead,
    new_encoder,
    pixels,
)
from trainer.families.family import Decoder, Denoiser
from trainer.run_directory.run import ImageFile, PairFiles, image_file
from trainer.runtime.errors import BadRun, CacheTooSmall, Interrupted
from trainer.runtime.signals import StopRequest
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
    missing_parts: tuple[str, ...] = ()
    fingerprint: dict[str, Any] = field(default_factory=dict)
    together: list[int] = field(default_factory=list)
    loaded: list[tuple[bool, bool]] = field(default_factory=list)

    def load_encoders(self, _device: torch.device, *, prompts: bool = True, images: bool = True) -> Mean:
        self.loaded.append((prompts, images))
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


class Moments(Mean):
    """Deviations too: each image's own."""

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, _ = super().encode_images(pixels)
        return mean, 2 + mean


class Words(Moments):
    """Prompts of both kinds: hidden states, and token ids."""

    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        return [{"hidden": torch.full((3,), 1 / 3), "ids": torch.tensor([2**40 + 1])} for _ in prompts]


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


def test_the_requested_resolution_replaces_the_bases_own(tmp_path: Path) -> None:
    encoder = new_encoder(Mean(64), Cache(tmp_path), 32)
    square = ImageFile(tmp_path / "x.png", "x", (500, 500))
    assert encoder.bucket(square) == Bucket(32, 32)


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> ImageFile:
    path = folder / name
    image.save(path, **options)
    return image_file(path)


def all_encoded(cache: Cache, family: Mean, *files: ImageFile) -> list[Tensors]:
    encoder = new_encoder(family, cache, "auto")
    images = [encoder.image(file, encoder.bucket(file)) for file in files]
    encoder.encode([], images, device=CPU, stop=StopRequest(), progress=lambda *_: None)
    return [cache.read(image.key) for image in images]


def test_mean_and_deviation_of_each_image_are_cached_as_its_own(tmp_path: Path) -> None:
    colours = ((255, 255, 255), (0, 0, 0), (0, 0, 0), (255, 0, 0))
    files = [saved(tmp_path, f"{at}.png", Image.new("RGB", (16, 16), one)) for at, one in enumerate(colours)]
    found = all_encoded(Cache(tmp_path / "cache"), Moments(16), *files)
    expected = [[1.0] * 3, [-1.0] * 3, [-1.0] * 3, [1.0, -1.0, -1.0]]
    assert [one["mean"].flatten().tolist() for one in found] == expected
    assert [one["std"].flatten().tolist() for one in found] == [[2 + mean for mean in means] for means in expected]


def test_an_image_is_cut_at_its_ends_and_never_squeezed(tmp_path: Path) -> None:
    """Of a white image with black ends, a square shows the white middle."""
    image = Image.new("RGB", (48, 16), "black")
    image.paste("white", (16, 0, 32, 16))
    encoder = new_encoder(Mean(16), Cache(tmp_path / "cache"), "auto")
    cut = encoder.image(saved(tmp_path, "wide.png", image), Bucket(16, 16))
    shown = pixels(cut)
    assert shown.shape == (3, 16, 16)
    assert shown[:, :, 4:12].min() == 1.0
    assert shown.mean() > 0.9


def test_both_images_of_a_pair_get_the_bucket_that_suits_both_and_equal_ones_the_same_crop(tmp_path: Path) -> None:
    encoder = new_encoder(Mean(16), Cache(tmp_path / "cache"), "auto")
    wide, tall = (ImageFile(tmp_path / "x.png", str(size), size) for size in ((64, 16), (16, 64)))
    square, other = ImageFile(tmp_path / "y.png", "y", (40, 24)), ImageFile(tmp_path / "z.png", "z", (40, 24))
    shared = encoder.bucket(wide, tall)
    for chosen, rejected in ((wide, tall), (tall, wide)):
        unlike = encoder.pair(PairFiles("p", "p", chosen, rejected), ["p"])
        assert [unlike.bucket, *(image.crop.bucket for image in unlike.images)] == [shared] * 3
        assert [image.file for image in unlike.images] == [chosen, rejected]
    alike = encoder.pair(PairFiles("p", "p", square, other), ["p"], may_mirror=True)
    assert alike.images[0].crop == alike.images[1].crop
    assert [image.mirror and image.mirror.crop for image in alike.images] == [alike.images[0].crop] * 2


def test_an_entry_is_anothers_where_anything_it_depends_on_is_another(tmp_path: Path) -> None:
    encoder = new_encoder(Mean(16, fingerprint={"sha256": "a"}), Cache(tmp_path), "auto")
    another = new_encoder(Mean(16, fingerprint={"sha256": "b"}), Cache(tmp_path), "auto")
    file, of_other_bytes, of_other_size = (
        ImageFile(tmp_path / "x.png", sha256, size)
        for sha256, size in (("x", (32, 32)), ("y", (32, 32)), ("x", (64, 32)))
    )
    square, larger = Bucket(16, 16), Bucket(32, 32)
    image = encoder.image(file, square, may_mirror=True)
    assert image.mirror is not None
    keys = [
        image.key,
        image.mirror.key,
        encoder.image(of_other_bytes, square).key,
        encoder.image(of_other_size, square).key,  # of other bytes too, really: it stands for another crop
        encoder.image(file, larger).key,
        another.image(file, square).key,
        encoder.prompt_key("x"),
        encoder.prompt_key("y"),
        another.prompt_key("x"),
    ]
    assert len(set(keys)) == len(keys)
    assert encoder.image(file, square).key == image.key
    moved = ImageFile(tmp_path / "elsewhere.png", "x", (32, 32))
    assert encoder.image(moved, square).key == image.key


def test_a_file_that_changed_since_it_was_read_is_refused_by_name(tmp_path: Path) -> None:
    file = saved(tmp_path, "x.png", Image.new("RGB", (16, 16), "red"))
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "x.png")
    with pytest.raises(BadRun, match=r"'x\.png'; changed while the run was reading it"):
        all_encoded(Cache(tmp_path / "cache"), Mean(16), file)


def test_an_image_whose_orientation_comes_too_late_is_refused_by_name(tmp_path: Path) -> None:
    """The crop follows from the header alone, which EXIF data behind the pixels would contradict."""
    plain = saved(tmp_path, "x.png", Image.new("RGB", (32, 16), "red"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (32, 16), "red").save(tmp_path / "early.png", exif=exif)
    content = (tmp_path / "early.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    late = content[:start] + content[end:-12] + content[start:end] + content[-12:]  # before the last chunk, IEND
    (tmp_path / "late.png").write_bytes(late)
    file = image_file(tmp_path / "late.png")
    assert file.size == plain.size
    with pytest.raises(BadRun, match=r"'late\.png'; its EXIF orientation follows the pixels"):
        all_encoded(Cache(tmp_path / "cache"), Mean(16), file)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class InTurn(Mean):
    """Encoders of its own for each load; none may be loaded while others are."""

    references: list[weakref.ref[Mean]] = field(default_factory=list)

    def load_encoders(self, _device: torch.device, *, prompts: bool = True, images: bool = True) -> Mean:
        gc.collect()
        assert [reference for reference in self.references if reference() is not None] == []
        encoders = Mean(self.native_size)
        self.references.append(weakref.ref(encoders))
        self.loaded.append((prompts, images))
        return encoders


def test_text_encoders_are_gone_before_the_autoencoder_comes(tmp_path: Path) -> None:
    family = InTurn(64)
    encoder = new_encoder(family, Cache(tmp_path / "cache"), "auto")
    image = encoder.image(saved_image(tmp_path / "a.png"), encoder.native)
    for _ in range(2):  # the second time nothing is missing
        encoder.encode(["a", "b"], [image], device=CPU, stop=StopRequest(), progress=lambda *_: None)
    assert family.loaded == [(True, False), (False, True)]


def saved_image(path: Path) -> ImageFile:
    Image.new("RGB", (64, 64), (200, 100, 50)).save(path)
    return image_file(path)


PRECISIONS = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.float16),
    (torch.float16, torch.float16),
]


@pytest.mark.parametrize(("dtype", "moments"), PRECISIONS)
def test_prompts_are_cached_as_the_denoiser_reads_them_and_moments_in_fp16_for_half_precision(
    tmp_path: Path, dtype: torch.dtype, moments: torch.dtype
) -> None:
    path = tmp_path / "1.png"
    Image.new("RGB", (16, 16), (77, 0, 0)).save(path)
    cache = Cache(tmp_path / "cache")
    encoder = new_encoder(Words(16), cache, "auto", dtype)
    image = encoder.image(image_file(path), Bucket(16, 16))
    encoder.encode(["a"], [image], device=CPU, stop=StopRequest(), progress=lambda *_: None)
    prompt = cache.read(encoder.prompt_key("a"))
    assert torch.equal(prompt["hidden"], torch.full((3,), 1 / 3).to(dtype))
    assert torch.equal(prompt["ids"], torch.tensor([2**40 + 1]))
    assert {tensor.dtype for tensor in cache.read(image.key).values()} == {moments}


def test_bases_of_other_precision_have_other_entries(tmp_path: Path) -> None:
    file = ImageFile(Path("x"), "x", (16, 16))
    encoders = [new_encoder(Mean(16), Cache(tmp_path), "auto", dtype) for dtype, _ in PRECISIONS]
    assert len({encoder.prompt_key("a") for encoder in encoders}) == 3
    images = [encoder.image(file, Bucket(16, 16), may_mirror=True) for encoder in encoders]
    assert len({image.key for image in images}) == len({one.mirror.key for one in images if one.mirror}) == 2


def test_images_are_decoded_while_others_are_encoded_and_no_further_ahead_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, encoder = several_images(tmp_path, 40, Mean(1024))
    decoded: list[str] = []

    def counted(image: EncodedImage) -> Tensor:
        decoded.append(threading.current_thread().name)
        return torch.zeros(3, 8, 8)

    monkeypatch.setattr("trainer.data.encoding.pixels", counted)
    ahead = []
    for index, (group, futures) in enumerate(decoded_ahead([images[at : at + 2] for at in range(0, 40, 2)])):
        assert group == images[2 * index : 2 * index + 2]
        until(lambda index=index: len(decoded) == min(40, 2 * (index + 1 + GROUPS_AHEAD)))  # type: ignore[misc]
        ahead.append(len(decoded) - 2 * (index + 1))
        assert all(future.result().shape == (3, 8, 8) for future in futures)
    assert max(ahead) == 2 * GROUPS_AHEAD
    assert threading.current_thread().name not in decoded
    assert encoder.native == Bucket(1024, 1024)


def test_a_stop_while_images_are_decoded_ahead_leaves_no_thread(tmp_path: Path) -> None:
    images, encoder = several_images(tmp_path, 20, Mean(1024))
    stop = StopRequest()

    def stop_at_the_first(done: int, _total: int) -> None:
        stop.requested = True

    before = threading.active_count()
    with pytest.raises(Interrupted):
        encoder.encode([], images, device=CPU, stop=stop, progress=stop_at_the_first)
    gc.collect()
    assert threading.active_count() == before


def several_images(folder: Path, count: int, family: Mean) -> tuple[list[EncodedImage], CachingEncoder]:
    encoder = new_encoder(family, Cache(folder / "cache"), "auto")
    images = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
        images.append(encoder.image(image_file(path), encoder.native))
    return images, encoder


@pytest.mark.parametrize("kind", ["prompts", "images"])
def test_a_run_that_will_exceed_the_caches_bound_ends_after_its_first_entries(tmp_path: Path, kind: str) -> None:
    images, encoder = several_images(tmp_path, 20, Mean(1024))
    bounded = replace(encoder, cache=Cache(tmp_path / "bounded", 15 * 4096))
    prompts = [f"prompt {index}" for index in range(80)] if kind == "prompts" else []
    with pytest.raises(CacheTooSmall):
        bounded.encode(prompts, images, device=CPU, stop=StopRequest(), progress=lambda *_: None)
    assert len(list((tmp_path / "bounded").rglob("*.safetensors"))) == (32 if kind == "prompts" else 2)
