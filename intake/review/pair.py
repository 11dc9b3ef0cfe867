"""What the review looks at of a pair: the row, and of its images what intake found when it stored them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from intake.image_folder import StoredImage
from intake.pairs import PreparedPair


@dataclass(frozen=True)
class ReviewedPair:
    pair: PreparedPair
    chosen: StoredImage
    rejected: StoredImage | None

    @property
    def images(self) -> tuple[StoredImage, ...]:
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)


def same_prompt(prompt: str) -> str:
    """Equal for prompts that differ in case, spacing or Unicode form alone."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
