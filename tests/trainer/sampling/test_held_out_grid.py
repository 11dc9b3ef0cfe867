"""The result's own samples."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from PIL import Image

from trainer.sampling.grid import CELL, GAP, HEADER, MARGIN
from trainer.sampling.held_out_grid import held_out_grid
from trainer.spec.buckets import Bucket

pytestmark = pytest.mark.unit


@dataclass
class Painter:
    """A sampler whose images are blue with the adapter and red without."""

    adapted: bool = True
    requested: list[tuple[bool, Sequence[str], Sequence[int]]] = field(default_factory=list)

    def sample(
        self, prompt_keys: Sequence[str], *, seeds: Sequence[int], size: Bucket, check: Callable[[], None]
    ) -> list[Image.Image]:
        check()
        self.requested.append((self.adapted, prompt_keys, seeds))
        return [Image.new("RGB", (size.width, size.height), "blue" if self.adapted else "red") for _ in prompt_keys]

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        self.adapted = False
        yield
        self.adapted = True


def test_the_base_stands_above_the_adapter_on_the_same_prompts_from_the_same_noise() -> None:
    painter, reported = Painter(), list[tuple[int, int]]()
    sheet = held_out_grid(["a cat", "a dog", "a hat"], "key of {}".format, columns=2, size=Bucket(32, 32), seed=1)
    png = sheet.sample(painter, painter.without_adapter, lambda: None, lambda *of: reported.append(of))  # type: ignore[arg-type]
    (without, keys, seeds), (within, *same) = painter.requested
    assert (without, within, [keys, seeds]) == (False, True, same)
    assert keys == [f"key of {prompt}" for prompt in sheet.prompts]
    assert reported == [(0, 4), (2, 4)]
    with Image.open(io.BytesIO(png)) as image:
        rows = [image.getpixel((MARGIN + 1, HEADER + row * (CELL + GAP) + 1)) for row in range(2)]
    assert rows == [(255, 0, 0), (0, 0, 255)]


def test_prompts_are_different_ones_as_far_as_there_are_and_come_again_from_other_noise() -> None:
    captions = ["a cat", "a cat", "a dog", "a hat"]
    few = held_out_grid(captions, str, columns=3, size=Bucket(32, 32), seed=1)
    assert sorted(few.prompts) == ["a cat", "a dog", "a hat"]
    many = held_out_grid(["<toy>"], str, columns=4, size=Bucket(32, 32), seed=1)
    assert many.prompts == ["<toy>"] * 4
    assert len(set(many.seeds)) == 4
