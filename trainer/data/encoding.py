"""Encode every image and prompt of a run once with the frozen encoders, into the cache."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.cache.cache import Cache, key_of
from trainer.families.family import Encoders, Family
from trainer.run_directory.images import UnreadableImage, decode
from trainer.run_directory.run import ImageFile, PairFiles
from trainer.runtime.device import free_memory
from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.runtime.signals import StopRequest
from trainer.spec.buckets import Bucket, Crop, buckets, centre_crop, shared_bucket
from trainer.spec.strict import Auto

# What goes through an encoder together is fixed by the run, not by what is already cached: an entry that an
# interrupted run computes again is the same to the last bit.
MAX_IMAGES_PER_PASS = 8
MAX_PIXELS_PER_PASS = 2 * 2**20  # SDXL's VAE takes 2.5 GiB for each 2**20 of them, in fp32
MAX_PROMPTS_PER_PASS = 32
DECODING_THREADS = max(1, min(4, os.cpu_count() or 1))  # Pillow and hashing let other threads run
GROUPS_AHEAD = 2  # of images that are decoded while one is encoded: at most 48 MiB at 1024 x 1024

Item = TypeVar("Item")


@dataclass(frozen=True)
class EncodedImage:
    """``mirrored``: left and right are swapped; ``mirror`` is the same image that way, where it may be used."""

    key: str
    file: ImageFile
    crop: Crop
    mirrored: bool = False
    mirror: EncodedImage | None = None


@dataclass(frozen=True)
class EncodedPair:
    """``prompt_keys`` has one for each caption template, ``images`` chosen and, where there is one, rejected.

    ``weight`` multiplies the pair's loss; it is 1 on average over a dataset.
    """

    id: str
    bucket: Bucket
    prompt_keys: tuple[str, ...]
    images: tuple[EncodedImage, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class CachingEncoder:
    """Plans and fills the cache for one base; keys follow from what an encoding depends on.

    ``dtype`` is the denoiser's: prompts are cached in it. Where it is half precision, the moments of images are cached
    in fp16, whose rounding is far below the noise that training adds.
    """

    family: Family
    cache: Cache
    sizes: tuple[Bucket, ...]
    dtype: torch.dtype = torch.float32

    @property
    def moments_dtype(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float32 else torch.float16

    @property
    def native(self) -> Bucket:
        """The bucket of square images."""
        return shared_bucket([(1, 1)], self.sizes)

    def prompt_key(self, prompt: str) -> str:
        return key_of(kind="prompt", encoder=self.family.fingerprint, prompt=prompt, dtype=str(self.dtype))

    def bucket(self, *images: ImageFile) -> Bucket:
        return shared_bucket([image.size for image in images], self.sizes)

    def image(self, file: ImageFile, bucket: Bucket, *, may_mirror: bool = False) -> EncodedImage:
        crop = centre_crop(file.size, bucket)
        depends = {
            "image": file.sha256,
            "box": crop.box,
            "size": [bucket.width, bucket.height],
            "dtype": str(self.moments_dtype),
        }
        key = key_of(kind="image", encoder=self.family.fingerprint, **depends)
        if not may_mirror:
            return EncodedImage(key, file, crop)
        mirror_key = key_of(kind="mirrored image", encoder=self.family.fingerprint, **depends)
        return EncodedImage(key, file, crop, mirror=EncodedImage(mirror_key, file, crop, mirrored=True))

    def pair(self, pair: PairFiles, prompts: Sequence[str], *, may_mirror: bool = False) -> EncodedPair:
        files = [file for file in (pair.chosen, pair.rejected) if file is not None]
        bucket = self.bucket(*files)
        images = tuple(self.image(file, bucket, may_mirror=may_mirror) for file in files)
        return EncodedPair(pair.id, bucket, tuple(map(self.prompt_key, prompts)), images, pair.weight)

    def encode(
        self,
        prompts: Iterable[str],
        images: Iterable[EncodedImage],
        *,
        device: torch.device,
        stop: StopRequest,
        progress: Callable[[int, int], None],
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Compute what the cache lacks; the networks are loaded only if it lacks something, and gone on return.

        Several processes share the work, and all of them return when it is done.

        Raises BadRun naming every image that cannot be decoded, once all the others are cached; CacheTooSmall as soon
        as the first entries show that all of them together exceed the cache's bound.
        """
        named = {self.prompt_key(prompt): prompt for prompt in prompts}
        wanted = {one.key: one for image in images for one in (image, image.mirror) if one is not None}
        self.cache.pin([*named, *wanted])
        prompt_groups = [
            g for g in _groups(named.items(), MAX_PROMPTS_PER_PASS) if self._any_missing(key for key, _ in g)
        ]
        image_groups = [
            group
            for alike in _by_bucket(wanted.values())
            for group in _groups(alike, _images_per_pass(alike[0].crop.bucket))
            if self._any_missing(image.key for image in group)
        ]
        process_group.all_gather(None)  # what one of them computes now, another must not find
        field_errors: list[RunFieldError] = []
        self._compute(
            process_group.shard(prompt_groups),
            process_group.shard(image_groups),
            (named.keys(), wanted.keys()),
            field_errors,
            device,
            stop,
            progress,
        )
        stop.agree(process_group.any(stop.requested))
        everyones = [field_error for found in process_group.all_gather(field_errors) for field_error in found]
        if everyones:
            raise BadRun(everyones, code="bad_data")

    def _compute(
        self,
        prompt_groups: Sequence[Sequence[tuple[str, str]]],
        image_groups: Sequence[Sequence[EncodedImage]],
        planned: tuple[Collection[str], Collection[str]],
        field_errors: list[RunFieldError],
        device: torch.device,
        stop: StopRequest,
        progress: Callable[[int, int], None],
    ) -> None:
        """The groups of this process; ``planned`` are all keys of prompts, and all of images."""
        total, done = sum(map(len, prompt_groups)) + sum(map(len, image_groups)), 0
        # One kind after the other: SD3's text encoders take 12 GiB, and its autoencoder 5 while it encodes.
        if prompt_groups:
            encoders = self.family.load_encoders(device, images=False)
            for prompt_group in prompt_groups:
                stop.check()
                self._encode_prompts(encoders, prompt_group)
                if prompt_group is prompt_groups[0]:
                    self._require_enough_cache(planned[0], like=[key for key, _ in prompt_group])
                progress(done := done + len(prompt_group), total)
            del encoders
            free_memory(device)
        if image_groups:
            encoders = self.family.load_encoders(device, prompts=False)
            for image_group, decoded in decoded_ahead(image_groups):
                stop.check()
                self._encode_images(encoders, image_group, decoded, field_errors)
                if image_group is image_groups[0]:
                    self._require_enough_cache(planned[1], like=[image.key for image in image_group])
                progress(done := done + len(image_group), total)

    def _encode_prompts(self, encoders: Encoders, group: Sequence[tuple[str, str]]) -> None:
        for (key, _), tensors in zip(group, encoders.encode_prompts([prompt for _, prompt in group]), strict=True):
            if not self.cache.has(key):
                self.cache.write(key, {name: self._in_dtype(tensor) for name, tensor in tensors.items()})

    def _in_dtype(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _encode_images(
        self,
        encoders: Encoders,
        group: Sequence[EncodedImage],
        decoded: Sequence[Future[Tensor]],
        field_errors: list[RunFieldError],
    ) -> None:
        readable: dict[EncodedImage, Tensor] = {}
        for image, one in zip(group, decoded, strict=True):
            try:
                readable[image] = one.result()
            except UnreadableImage as error:
                field_errors.append(RunFieldError("data", repr(image.file.path.name), str(error)))
        if not readable:
            return
        means, deviations = encoders.encode_images(torch.stack(list(readable.values())))
        for image, mean, deviation in zip(readable, means, deviations, strict=True):
            if not self.cache.has(image.key):
                moments = {"mean": mean, "std": deviation}
                self.cache.write(image.key, {name: one.to(self.moments_dtype) for name, one in moments.items()})

    def _require_enough_cache(self, planned: Collection[str], *, like: Sequence[str]) -> None:
        """Raises CacheTooSmall if the ``planned`` entries, those to come as large as ``like``, exceed the bound."""
        sizes = [size for key in like if (size := self.cache.size(key))]
        if sizes and self.cache.max_bytes is not None:
            to_come = sum(not self.cache.has(key) for key in planned)
            self.cache.require_within_bound(to_come * sum(sizes) // len(sizes))

    def _any_missing(self, keys: Iterable[str]) -> bool:
        return any(not self.cache.has(key) for key in keys)


def new_encoder(
    family: Family, cache: Cache, resolution: int | Auto, dtype: torch.dtype = torch.float32
) -> CachingEncoder:
    """Raises BadRun where the base can train at no size near ``resolution``."""
    native = family.native_size if resolution == "auto" else resolution
    sizes = tuple(buckets(native, family.size_multiple, family.largest_side))
    if not sizes:
        allowed = f"sides are multiples of {family.size_multiple}, at most {family.largest_side or 'any size'}"
        raise BadRun([RunFieldError("data.resolution", str(resolution), allowed)])
    return CachingEncoder(family, cache, sizes, dtype)


def _by_bucket(images: Iterable[EncodedImage]) -> Iterator[list[EncodedImage]]:
    alike: dict[Bucket, list[EncodedImage]] = {}
    for image in images:
        alike.setdefault(image.crop.bucket, []).append(image)
    yield from alike.values()


def _images_per_pass(bucket: Bucket) -> int:
    return max(1, min(MAX_IMAGES_PER_PASS, MAX_PIXELS_PER_PASS // (bucket.width * bucket.height)))


def _groups(items: Iterable[Item], size: int) -> list[list[Item]]:
    everything = list(items)
    return [everything[start : start + size] for start in range(0, len(everything), size)]


def decoded_ahead(
    groups: Sequence[Sequence[EncodedImage]],
) -> Iterator[tuple[Sequence[EncodedImage], list[Future[Tensor]]]]:
    """Each group with its ``pixels``, in order; threads decode the next groups while the caller encodes this one."""
    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        remaining = iter(groups)
        waiting: deque[tuple[Sequence[EncodedImage], list[Future[Tensor]]]] = deque()
        try:
            while True:
                for group in islice(remaining, 1 + GROUPS_AHEAD - len(waiting)):
                    waiting.append((group, [threads.submit(pixels, image) for image in group]))
                if not waiting:
                    return
                yield waiting.popleft()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def pixels(image: EncodedImage) -> Tensor:
    """(3, height, width) in [-1, 1]. Raises UnreadableImage, also for a file that changed since it was hashed."""
    content = image.file.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != image.file.sha256:
        raise UnreadableImage("changed while the run was reading it")
    bucket = image.crop.bucket
    decoded = decode(content)
    if decoded.size != image.file.size:
        raise UnreadableImage("its EXIF orientation follows the pixels; save it upright")
    filled = decoded.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS, box=image.crop.box)
    values = torch.from_numpy(np.array(filled)).permute(2, 0, 1).float() / 127.5 - 1
    return values.flip(2) if image.mirrored else values
