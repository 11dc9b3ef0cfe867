"""Leakage: prompts and images that training and validation share, also from two files or datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from intake.findings import printable
from trainer.spec.events import Warned
from trainer.spec.manifest import ManifestPair
from trainer.spec.same import same_prompt

SHOWN = 3  # prompts that a message names


def warnings(pairs: Sequence[ManifestPair]) -> Iterator[Warned]:
    """Validation is too optimistic where it measures what was trained on: prompts, or the images themselves."""
    trained = [pair for pair in pairs if pair.split == "train"]
    validated = [pair for pair in pairs if pair.split == "validation"]
    trained_prompts = {same_prompt(pair.prompt) for pair in trained}
    shared = {
        same_prompt(pair.prompt): pair.prompt for pair in validated if same_prompt(pair.prompt) in trained_prompts
    }
    if shared:
        count = sum(same_prompt(pair.prompt) in shared for pair in validated)
        named = ", ".join(f"'{printable(prompt)}'" for prompt in islice(shared.values(), SHOWN))
        more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        message = (
            f"{count} of {len(validated)} validation pairs have a prompt that is trained on too ({named}{more}), which "
            "makes validation too kind: keep each prompt in one of them."
        )
        yield Warned(code="prompt_leaked", message=message)
    images = {image for pair in trained for image in _images(pair)}
    count = sum(any(image in images for image in _images(pair)) for pair in validated)
    if count:
        message = (
            f"{count} of {len(validated)} validation pairs have an image that is trained on too, which makes "
            "validation too kind: keep each image in one of them."
        )
        yield Warned(code="image_leaked", message=message)


def _images(pair: ManifestPair) -> tuple[str, ...]:
    return (pair.chosen,) if pair.rejected is None else (pair.chosen, pair.rejected)
