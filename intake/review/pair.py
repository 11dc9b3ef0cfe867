"""What the review looks at of a pair: the row, and of its images what intake found when it stored them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from intake.images.image_folder import StoredImage
from intake.pairs import PreparedPair

Digest = bytes


@dataclass(frozen=True)
class ReviewedPair:
    pair: PreparedPair
    chosen: StoredImage
    rejected: StoredImage | None
    tied: bool = False
    file: str | None = None  # where its row stands, if the upload has several tables

    def both_orders(self) -> tuple[PreparedPair, ...]:
        """What a tie is kept as; without a rejected image there is only one order."""
        if self.rejected is None:
            return (self.pair,)
        return self.pair, replace(self.pair, chosen=self.rejected.sha256, rejected=self.chosen.sha256)

    @property
    def images(self) -> tuple[StoredImage, ...]:
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)


def digest(*parts: str) -> Digest:
    """16 bytes: with 100,000 of them two are the same by chance once in 10^28."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
