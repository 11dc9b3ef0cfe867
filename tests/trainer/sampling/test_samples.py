"""Samples of a run, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from trainer.sampling.grid import CELL, GAP, HEADER, MARGIN, GridRow, grid
from trainer.sampling.samples import ROWS, Samples
from trainer.spec.buckets import Bucket

pytestmark = pytest.mark.unit


@dataclass
class Painter:
    """A sampler whose images are one colour; remembers what was requested."""

    colour: str = "red"
    requested: list[tuple[Sequence[str], Sequence[int]]] = field(default_factory=list)

    def sample(
        self, prompt_keys: Sequence[str], *, seeds: Sequence[int], size: Bucket, check: Callable[[], None]
    ) -> list[Image.Image]:
        check()
        self.requested.append((prompt_keys, seeds))
        return [Image.new("RGB", (size.width, size.height), self.colour) for _ in prompt_keys]


def samples(folder: Path, painter: Painter) -> Samples:
    return Samples(folder, painter, ["a cat", "a dog"], ["k1", "k2"], [5, 6], Bucket(32, 32))  # type: ignore[arg-type]


def nothing() -> None:
    pass


def ignore(_done: int, _total: int) -> None:
    pass


def test_each_step_has_its_images_and_the_grid_a_row_for_each(tmp_path: Path) -> None:
    painter = Painter()
    these = samples(tmp_path, painter)
    for step in (0, 10):
        painter.colour = "blue" if step else "red"
        written = these.write(step, nothing, ignore)
        assert all((tmp_path / path).exists() for path in written.paths)
        assert written.seconds >= 0
    assert painter.requested == [(["k1", "k2"], [5, 6])] * 2
    with Image.open(tmp_path / written.grid) as file:
        sheet = file.copy()
    centres = [HEADER + line * (CELL + GAP) + CELL // 2 for line in range(2)]
    assert [sheet.getpixel((MARGIN + CELL // 2, y)) for y in centres] == [(255, 0, 0), (0, 0, 255)]


def test_a_step_that_is_there_is_not_sampled_again(tmp_path: Path) -> None:
    painter = Painter()
    samples(tmp_path, painter).write(0, nothing, ignore)
    samples(tmp_path, painter).write(0, nothing, ignore)
    assert len(painter.requested) == 1


def test_a_resumed_run_forgets_the_steps_it_will_come_to_again(tmp_path: Path) -> None:
    these = samples(tmp_path, Painter())
    for step in (0, 10, 20):
        these.write(step, nothing, ignore)
    these.remove_after(10)
    assert sorted(path.name for path in (tmp_path / "samples").glob("step-*")) == ["step-00000000", "step-00000010"]


def test_a_run_that_starts_again_forgets_all_samples_and_what_was_half_written(tmp_path: Path) -> None:
    these = samples(tmp_path, Painter())
    these.remove_after(-1)
    these.write(0, nothing, ignore)
    (tmp_path / "samples/.step-00000010.0a0b0c0d.partial").mkdir()
    these.remove_after(-1)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == []


def test_the_grid_of_a_long_run_keeps_the_base_and_the_last_step_and_stays_small(tmp_path: Path) -> None:
    painter = Painter()
    these = samples(tmp_path, painter)
    for step in range(ROWS + 10):
        painter.colour = {0: "red", ROWS + 9: "blue"}.get(step, "white")
        written = these.write(step, nothing, ignore)
    with Image.open(tmp_path / written.grid) as file:
        sheet = file.copy()
    assert sheet.height == HEADER + ROWS * (CELL + GAP)
    assert sheet.getpixel((MARGIN + 1, HEADER + 1)) == (255, 0, 0)
    assert sheet.getpixel((MARGIN + 1, sheet.height - GAP - 2)) == (0, 0, 255)


def test_large_images_are_scaled_down_and_small_ones_up_by_whole_factors() -> None:
    sheet = grid(["p"], [GridRow("base", [Image.new("RGB", (1024, 512), "red")])])
    assert sheet.size == (MARGIN + CELL + GAP, HEADER + CELL // 2 + GAP)
    assert grid(["p"], [GridRow("base", [Image.new("RGB", (100, 100))])]).size[0] == MARGIN + 200 + GAP


def test_a_prompt_of_any_length_fits_its_column() -> None:
    for prompt in ("", "word " * 300, "w" * 500):
        assert grid([prompt], [GridRow("base", [Image.new("RGB", (32, 32))])]).size[0] == MARGIN + CELL + GAP
