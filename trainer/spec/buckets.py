"""Aspect-ratio buckets: which size a pair trains at, and which part of each image fills it.

An image is scaled, never stretched, until it covers its bucket, and what sticks out is cut evenly from both ends.
Both images of a pair share a bucket, so that equally large images are cut at the same place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_RATIO = 4.0  # the widest bucket of SDXL's own training, 2048 x 512


@dataclass(frozen=True, order=True)
class Bucket:
    """Pixels."""

    width: int
    height: int

    @property
    def log_ratio(self) -> float:
        return math.log(self.width / self.height)


@dataclass(frozen=True)
class Crop:
    """Where a bucket lies in an image.

    ``box`` is left, top, right, bottom in the image's own pixels, fractions included, with exactly the bucket's
    aspect ratio. ``corner`` is that left and top in pixels of the scaled image.
    """

    original: tuple[int, int]
    box: tuple[float, float, float, float]
    corner: tuple[int, int]
    bucket: Bucket

    @property
    def size_ids(self) -> tuple[int, int, int, int, int, int]:
        """SDXL's size conditioning (arXiv 2307.01952, 2.2): original, crop corner and target, each as y, x."""
        (width, height), (left, top) = self.original, self.corner
        return height, width, top, left, self.bucket.height, self.bucket.width

    @property
    def is_upscaled(self) -> bool:
        left, _, right, _ = self.box
        return right - left < self.bucket.width

    @property
    def left_out(self) -> float:
        """The part of the image that is cut off, 0 to 1."""
        (width, height), (left, top, right, bottom) = self.original, self.box
        return 1 - (right - left) * (bottom - top) / (width * height)


def buckets(native: int, multiple: int, largest_side: int | None = None) -> list[Bucket]:
    """Sizes with sides divisible by ``multiple`` and at most the area of the base's ``native`` x ``native`` pixels.

    None has a side above ``largest_side``, so there are none at all if that is far below ``native``.
    """
    sides = range(multiple, int(native * math.sqrt(MAX_RATIO)) + 1, multiple)
    tall = [Bucket(width, native * native // width // multiple * multiple) for width in sides if width <= native]
    fitting = {b for b in tall if b.width > 0 and max(b.width / b.height, b.height / b.width) <= MAX_RATIO}
    sizes = fitting | {Bucket(b.height, b.width) for b in fitting}
    return sorted(b for b in sizes if largest_side is None or max(b.width, b.height) <= largest_side)


def shared_bucket(sizes: Sequence[tuple[int, int]], candidates: Sequence[Bucket]) -> Bucket:
    """The bucket that cuts least from all images (width, height) together; of equal ones the largest."""
    ratios = [math.log(width / height) for width, height in sizes]
    return min(
        candidates,
        key=lambda b: (round(sum(abs(ratio - b.log_ratio) for ratio in ratios), 9), -b.width * b.height, b),
    )


def centre_crop(size: tuple[int, int], bucket: Bucket) -> Crop:
    width, height = size
    scale = max(bucket.width / width, bucket.height / height)
    crop_width, crop_height = min(width, bucket.width / scale), min(height, bucket.height / scale)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return Crop(
        original=size,
        box=(left, top, left + crop_width, top + crop_height),
        corner=(round(left * scale), round(top * scale)),
        bucket=bucket,
    )
