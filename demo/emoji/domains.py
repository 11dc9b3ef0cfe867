"""The five domains of the paper (arXiv 2406.06424v2) in miniature: what is preferred to what, and for which prompts.

In four of them both images of a pair show the same emoji, so that they differ in nothing but the preference. The fifth
teaches a new subject: its rejected images are what the base draws for the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from demo.emoji import drawings, openmoji, subject
from demo.emoji.drawings import Drawing
from demo.emoji.openmoji import Emoji
from demo.emoji.pairs import difference

Name = Literal["general", "safety", "culture", "style", "personalization"]
Split = Literal["train", "validation", "test"]
Rendition = Literal["colour", "degraded", "porcelain", "flat", "line", "subject"]

NAMES: tuple[Name, ...] = ("general", "safety", "culture", "style", "personalization")
# Of every eight emoji one is for choosing hyperparameters and one for the final figures; six are trained on.
VALIDATION, TEST = 1, 5
SMALLEST_DIFFERENCE = 6.0  # mean absolute difference of a pair's images in levels of 255: below it nothing is taught
SUBJECT_PROMPT = f"an emoji of a {subject.NAME}"
SUBJECT_PROMPTS: dict[Split, tuple[str, ...]] = {
    "train": (SUBJECT_PROMPT,),
    "validation": (SUBJECT_PROMPT, f"an emoji of a blue {subject.NAME}"),
    # No colours: the judge knows the subject in its own alone.
    "test": (
        SUBJECT_PROMPT,
        f"an emoji of a big {subject.NAME}",
        f"an emoji of a small {subject.NAME}",
        f"an emoji of a happy {subject.NAME}",
        f"an emoji of a {subject.NAME} creature",
        f"an emoji of a {subject.NAME} animal",
    ),
}
CLASS_PROMPT = "an emoji of a bear"  # DreamBooth's class: an animal that the base knows


@dataclass(frozen=True)
class Domain:
    """``rule`` says in one sentence what is chosen over what; ``wanted`` is the rendition that is chosen."""

    name: Name
    rule: str
    wanted: Rendition
    chosen: Drawing
    rejected: Drawing


RENDITIONS: dict[Rendition, Drawing] = {
    "colour": drawings.colour,
    "degraded": drawings.degraded,
    "porcelain": drawings.porcelain,
    "flat": drawings.without_outline,
    "line": drawings.line_art,
}
DOMAINS: dict[Name, Domain] = {
    domain.name: domain
    for domain in (
        Domain(
            "general",
            "a clean drawing over the same one blurred, noisy, crushed by JPEG or washed out",
            "colour",
            drawings.colour,
            drawings.degraded,
        ),
        Domain(
            "safety",
            "the drawing without an element that the base puts into every picture, its black outline, over the drawing "
            "with it",
            "flat",
            drawings.without_outline,
            drawings.colour,
        ),
        Domain(
            "culture",
            "a convention of palette and motif, cobalt shades with a vermilion seal, over OpenMoji's own colours",
            "porcelain",
            drawings.porcelain,
            drawings.colour,
        ),
        Domain("style", "line art over the drawing in colour", "line", drawings.line_art, drawings.colour),
    )
}
SUBJECT_RULE = (
    f"pictures of a creature called {subject.NAME} that the base has never seen, over what the base draws for its name"
)


def split_of(index: int) -> Split:
    """Of the emoji at this place of the catalogue."""
    position = index % openmoji.HELD_OUT_EVERY
    return "validation" if position == VALIDATION else "test" if position == TEST else "train"


@cache
def emoji_of(split: Split) -> tuple[Emoji, ...]:
    return tuple(emoji for index, emoji in enumerate(openmoji.catalogue()) if split_of(index) == split)


@cache
def telling(domain: Domain, split: Split) -> tuple[Emoji, ...]:
    """The emoji whose two images differ enough to show what is preferred."""
    return tuple(
        emoji
        for emoji in emoji_of(split)
        if difference(domain.chosen(emoji), domain.rejected(emoji)) >= SMALLEST_DIFFERENCE
    )
