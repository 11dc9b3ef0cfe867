"""What the review looks at of a pair: the row, and of its images what intake found when it stored them."""

from __future__ import annotations

import hashlib
import unicodedata
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

    def both_orders(self) -> tuple[PreparedPair, ...]:
        """What a tie is kept as; without a rejected image there is only one order."""
        if self.rejected is None:
            return (self.pair,)
        return self.pair, replace(self.pair, chosen=self.rejected.sha256, rejected=self.chosen.sha256)

    @property
    def images(self) -> tuple[StoredImage, ...]:
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)


def same_prompt(prompt: str) -> str:
    """Equal for prompts that differ in case, spacing or Unicode form alone."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def digest(*parts: str) -> Digest:
    """16 bytes: with 100,000 of them two are the same by chance once in 10^28."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
