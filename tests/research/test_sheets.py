"""The sheets of samples: what stands above and beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from demo.emoji import drawings, openmoji, subject
from demo.emoji.domains import SUBJECT_PROMPT, emoji_of
from demo.emoji.openmoji import IMAGE_SIZE
from research.editions import edition
from research.page import plots
from research.page.sheets import wanted
from research.trials.judging import SHOWN, shown_prompts

pytestmark = pytest.mark.unit


def test_what_is_wanted_is_what_is_chosen_for_the_prompt() -> None:
    prompts = shown_prompts("style", "test")
    drawn = {one.caption: drawings.line_art(one) for one in emoji_of("test")}
    assert len(prompts) == SHOWN
    assert [image.tobytes() for image in wanted("style", prompts)] == [drawn[prompt].tobytes() for prompt in prompts]


def test_for_the_subject_its_test_poses_are_wanted_and_other_emoji_as_they_are() -> None:
    prompts = shown_prompts("personalization", "test")
    captions = {one.caption for one in openmoji.catalogue()}
    images = wanted("personalization", prompts)
    assert prompts[0] == SUBJECT_PROMPT
    assert images[0].tobytes() == subject.draw(subject.TEST[0]).tobytes()
    assert [prompt in captions for prompt in prompts] == [False] * 5 + [True] * 5
    (last,) = (one for one in emoji_of("test") if one.caption == prompts[-1])
    assert images[-1].tobytes() == drawings.colour(last).tobytes()


def test_a_grid_holds_its_images_under_their_heads(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), colour) for colour in ("red", "blue"))
    plots.sheet(tmp_path / "sheet.png", ["one", "another"], [("wanted", [red, blue]), ("base", [blue, red])])
    page = Image.open(tmp_path / "sheet.png").convert("RGB")
    cell, middle = IMAGE_SIZE + plots.GAP, IMAGE_SIZE // 2
    positions = [
        (plots.LABEL_WIDTH + column * cell + middle, plots.HEAD_HEIGHT + row * cell + middle)
        for row in range(2)
        for column in range(2)
    ]
    assert [page.getpixel(position) for position in positions] == [(255, 0, 0), (0, 0, 255), (0, 0, 255), (255, 0, 0)]


def test_every_domain_has_a_grid_as_high_as_its_rows() -> None:
    for name, methods in (("style", 4), ("personalization", 6)):
        with Image.open(edition("kept").pictures / f"{name}.webp") as grid:
            rows = methods + len(("wanted", "base"))
            assert grid.height == plots.HEAD_HEIGHT + rows * (IMAGE_SIZE + plots.GAP) + 20
