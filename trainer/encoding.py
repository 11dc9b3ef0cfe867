"""Every image and prompt of a run through the frozen encoders, once: afterwards all that training reads is cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.buckets import Bucket, Crop, buckets, centre_crop, shared_bucket
from trainer.cache import Cache, key_of
from trainer.errors import BadRun, Fault
from trainer.families.family import Encoders, Family
from trainer.images import UnreadableImage, decode
from trainer.interrupt import StopRequest
from trainer.rundir import ImageFile, PairFiles

# What goes through an encoder together is fixed by the run, not by what is already cached: an entry that an
# interrupted run computes again is the same to the last bit.
IMAGES_TOGETHER = 8
PIXELS_TOGETHER = 2 * 2**20  # SDXL's VAE takes 2.5 GiB for each 2**20 of them, in fp32
PROMPTS_TOGETHER = 32

Item = TypeVar("Item")


@dataclass(frozen=True)
class EncodedImage:
    key: str
    file: ImageFile
    crop: Crop


@dataclass(frozen=True)
class EncodedPair:
    id: str
    bucket: Bucket
    prompt: str
    prompt_key: str
    chosen: EncodedImage
    rejected: EncodedImage


@dataclass(frozen=True)
class Encoding:
    """``empty_prompt_key`` is what a dropped prompt is replaced by."""

    training: tuple[EncodedPair, ...]
    validation: tuple[EncodedPair, ...]
    empty_prompt_key: str


def encode(
    family: Family,
    cache: Cache,
    training: Sequence[PairFiles],
    validation: Sequence[PairFiles],
    *,
    device: torch.device,
    stop: StopRequest,
    progress: Callable[[int, int], None],
) -> Encoding:
    """Compute what the cache lacks; the encoders are loaded only if it lacks something, and gone on return.

    Raises BadRun naming every image that cannot be decoded, once all the others are cached.
    """
    sizes = buckets(family.native_size, family.size_multiple)
    plan = Encoding(
        tuple(_planned(pair, sizes, family) for pair in training),
        tuple(_planned(pair, sizes, family) for pair in validation),
        _prompt_key("", family),
    )
    pairs = dict.fromkeys((*plan.training, *plan.validation))
    prompts = {pair.prompt_key: pair.prompt for pair in pairs} | {plan.empty_prompt_key: ""}
    images = {image.key: image for pair in pairs for image in (pair.chosen, pair.rejected)}
    prompt_groups = [g for g in _groups(prompts.items(), PROMPTS_TOGETHER) if any(not cache.has(key) for key, _ in g)]
    image_groups = [
        group
        for alike in _by_bucket(images.values())
        for group in _groups(alike, _images_together(alike[0].crop.bucket))
        if any(not cache.has(image.key) for image in group)
    ]
    if not prompt_groups and not image_groups:
        return plan
    total = sum(map(len, prompt_groups)) + sum(map(len, image_groups))
    encoders = family.load_encoders(device)
    done = 0
    for prompt_group in prompt_groups:
        stop.check()
        _encode_prompts(encoders, cache, prompt_group)
        progress(done := done + len(prompt_group), total)
    faults: list[Fault] = []
    for image_group in image_groups:
        stop.check()
        _encode_images(encoders, cache, image_group, faults)
        progress(done := done + len(image_group), total)
    if faults:
        raise BadRun(faults, code="bad_data")
    return plan


def _planned(pair: PairFiles, sizes: Sequence[Bucket], family: Family) -> EncodedPair:
    bucket = shared_bucket((pair.chosen.size, pair.rejected.size), sizes)
    return EncodedPair(
        id=pair.id,
        bucket=bucket,
        prompt=pair.prompt,
        prompt_key=_prompt_key(pair.prompt, family),
        chosen=_planned_image(pair.chosen, bucket, family),
        rejected=_planned_image(pair.rejected, bucket, family),
    )


def _planned_image(file: ImageFile, bucket: Bucket, family: Family) -> EncodedImage:
    crop = centre_crop(file.size, bucket)
    key = key_of(
        kind="moments",
        encoder=family.fingerprint,
        image=file.sha256,
        box=crop.box,
        size=[bucket.width, bucket.height],
    )
    return EncodedImage(key, file, crop)


def _prompt_key(prompt: str, family: Family) -> str:
    return key_of(kind="prompt", encoder=family.fingerprint, prompt=prompt)


def _by_bucket(images: Iterable[EncodedImage]) -> Iterator[list[EncodedImage]]:
    alike: dict[Bucket, list[EncodedImage]] = {}
    for image in images:
        alike.setdefault(image.crop.bucket, []).append(image)
    yield from alike.values()


def _images_together(bucket: Bucket) -> int:
    return max(1, min(IMAGES_TOGETHER, PIXELS_TOGETHER // (bucket.width * bucket.height)))


def _groups(items: Iterable[Item], size: int) -> list[list[Item]]:
    everything = list(items)
    return [everything[start : start + size] for start in range(0, len(everything), size)]


def _encode_prompts(encoders: Encoders, cache: Cache, group: Sequence[tuple[str, str]]) -> None:
    for (key, _), tensors in zip(group, encoders.encode_prompts([prompt for _, prompt in group]), strict=True):
        if not cache.has(key):
            cache.write(key, tensors)


def _encode_images(encoders: Encoders, cache: Cache, group: Sequence[EncodedImage], faults: list[Fault]) -> None:
    readable: dict[EncodedImage, Tensor] = {}
    for image in group:
        try:
            readable[image] = _pixels(image)
        except UnreadableImage as error:
            faults.append(Fault("data", repr(image.file.path.name), str(error)))
    if not readable:
        return
    means, deviations = encoders.encode_images(torch.stack(list(readable.values())))
    for image, mean, deviation in zip(readable, means, deviations, strict=True):
        if not cache.has(image.key):
            cache.write(image.key, {"mean": mean, "std": deviation})


def _pixels(image: EncodedImage) -> Tensor:
    """(3, height, width) in [-1, 1]. Raises UnreadableImage, also for a file that changed since it was hashed."""
    content = image.file.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != image.file.sha256:
        raise UnreadableImage("changed while the run was reading it")
    bucket = image.crop.bucket
    decoded = decode(content)
    if decoded.size != image.file.size:
        raise UnreadableImage("its EXIF orientation follows the pixels; save it upright")
    filled = decoded.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS, box=image.crop.box)
    return torch.from_numpy(np.array(filled)).permute(2, 0, 1).float() / 127.5 - 1
