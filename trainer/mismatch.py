"""Measuring a run's reference mismatch: some of its prompts drawn by the base, and compared with the chosen images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from trainer.drawing.features import Dinov2, Features, Statistics
from trainer.drawing.mismatch import similarity, spread
from trainer.drawing.sampler import Artist
from trainer.encoding import EncodedImage, EncodedPair
from trainer.images import decode
from trainer.noise import keyed_seed
from trainer.spec.events import MismatchMeasured

DEFAULT_SAMPLES = 16


def features_of(dinov2: str | None, device: torch.device) -> Features:
    """Raises BadRun if the directory holds no DINOv2 in safetensors."""
    return Statistics() if dinov2 is None else Dinov2(Path(dinov2), device)


def measure_mismatch(
    pairs: Sequence[EncodedPair],
    artist: Artist,
    features: Features,
    count: int,
    *,
    seed: int,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> MismatchMeasured:
    """Of ``count`` pairs at most; the network draws as it is."""
    started = time.monotonic()
    picked = [pairs[place] for place in spread([pair.prompt_keys[0] for pair in pairs], count)]
    drawn: list[Image.Image] = []
    for pair in picked:
        progress(len(drawn), len(picked))
        seeds = [keyed_seed("mismatch", seed, pair.id)]
        drawn += artist.draw(pair.prompt_keys[:1], seeds=seeds, size=pair.bucket, check=check)
    found = similarity(drawn, [as_trained(pair.images[0]) for pair in picked], features)
    return MismatchMeasured(
        similarity=found.mean,
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
