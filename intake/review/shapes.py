"""Which sizes pairs would train at, as the trainer forms its aspect-ratio buckets, and images that go ill together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache

from intake.images.image_folder import StoredImage
from intake.report import SHOWN_SIZES
from trainer.spec.buckets import Bucket, buckets, shared_bucket
from trainer.spec.family_facts import FAMILIES, FamilyName

LOOSE = 0.02  # how much the images' shapes may differ (width by height) before one of them is cropped noticeably
# How many times the pixels of the other an image may have: more than twice the side, and one of them is blurred where
# both are scaled to one size. Generators of 512 and of 1024 pixels are commonly compared.
MORE_PIXELS = 4


class Shapes:
    """Counts the bucket of every pair, by family."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, sizes: Sequence[tuple[int, int]]) -> None:
        """(width, height) of a pair's images."""
        for family, bucket in _buckets_of(tuple(sizes)).items():
            self._counts[family][bucket] += 1

    def by_family(self) -> dict[str, dict[str, int]]:
        """Pairs by "width x height" of the bucket, the fullest ones first."""
        return {family: dict(counts.most_common(SHOWN_SIZES)) for family, counts in self._counts.items()}


@lru_cache(maxsize=4096)
def _buckets_of(sizes: tuple[tuple[int, int], ...]) -> dict[str, str]:
    chosen = {family: shared_bucket(sizes, _candidates(family)) for family in FAMILIES}
    return {family: f"{bucket.width}x{bucket.height}" for family, bucket in chosen.items()}


@cache
def _candidates(family: FamilyName) -> list[Bucket]:
    """Of the published base."""
    facts = FAMILIES[family]
    return buckets(facts.native_size, facts.size_multiple, facts.largest_side)


def unlike(chosen: StoredImage, rejected: StoredImage) -> list[str]:
    """What comes of the sizes of a pair's images, and what to do."""
    consequences = []
    if abs(chosen.width * rejected.height / (chosen.height * rejected.width) - 1) > LOOSE:
        consequences.append("both are cropped to one shape, check that nothing that matters is at an edge")
    fewer, more = sorted((chosen.width * chosen.height, rejected.width * rejected.height))
    if more > MORE_PIXELS * fewer:
        consequences.append("one has far fewer pixels, and training would learn sharpness, use images of like size")
    return consequences
