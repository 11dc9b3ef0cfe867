"""Measure the reference mismatch: sample some prompts from the base and compare with the chosen images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from trainer.data.encoding import EncodedImage, EncodedPair
from trainer.data.noise import keyed_seed
from trainer.data.pairs import pick_diverse
from trainer.evaluation.features import Dinov2, Features, Statistics
from trainer.evaluation.reference_mismatch import similarity
from trainer.run_directory.images import decode
from trainer.sampling.sampler import Sampler
from trainer.spec.events import MismatchMeasured

DEFAULT_SAMPLES = 16


def features_of(dinov2: str | None, device: torch.device) -> Features:
    """Raises BadRun if the directory holds no DINOv2 in safetensors."""
    return Statistics() if dinov2 is None else Dinov2(Path(dinov2), device)


def measure_mismatch(
    pairs: Sequence[EncodedPair],
    sampler: Sampler,
    features: Features,
    count: int,
    *,
    seed: int,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> MismatchMeasured:
    """Of ``count`` images, two at least; where there are fewer pairs, each gets several. The network is as it is."""
    started = time.monotonic()
    positions = pick_diverse([pair.prompt_keys[0] for pair in pairs], max(2, count))
    sampled: list[Image.Image] = []
    for number, position in enumerate(positions):
        progress(number, len(positions))
        pair = pairs[position]
        seeds = [keyed_seed("mismatch", seed, pair.id, number // len(pairs))]
        sampled += sampler.sample(pair.prompt_keys[:1], seeds=seeds, size=pair.bucket, check=check)
    found = similarity(sampled, [as_trained(pairs[position].images[0]) for position in positions], positions, features)
    return MismatchMeasured(
        similarity=found.value,
        low=found.low,
        high=found.high,
        images=found.images,
        features=found.features,
        seconds=time.monotonic() - started,
    )


def as_trained(image: EncodedImage) -> Image.Image:
    """Cropped and scaled to its bucket."""
    bucket = image.crop.bucket
    whole = decode(image.file.path.read_bytes())
    return whole.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS, box=image.crop.box)
