"""The reference mismatch of a run: the base's own images against the chosen ones, as training sees these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from tests.trainer.data.test_encoding import Mean, saved
from trainer.cache.cache import Cache
from trainer.data.encoding import EncodedPair, new_encoder
from trainer.evaluation.features import Statistics
from trainer.evaluation.measure_mismatch import as_trained, measure_mismatch
from trainer.run_directory.run import PairFiles
from trainer.spec.buckets import Bucket
from trainer.spec.events import MismatchMeasured

pytestmark = pytest.mark.unit

CHOSEN, REJECTED = ("red", "crimson", "firebrick", "darkred"), ("blue", "navy", "mediumblue", "darkblue")


@dataclass
class Painter:
    """A sampler who knows what each prompt looks like; records the requests."""

    colours: dict[str, str]
    requests: list[tuple[str, int, Bucket]] = field(default_factory=list)
    steps: int = 1
    guidance: float = 1.0

    def sample(
        self, prompt_keys: Sequence[str], *, seeds: Sequence[int], size: Bucket, check: Callable[[], None]
    ) -> list[Image.Image]:
        check()
        self.requests += [(key, seed, size) for key, seed in zip(prompt_keys, seeds, strict=True)]
        return [Image.new("RGB", (size.width, size.height), self.colours[key]) for key in prompt_keys]


def pairs(folder: Path) -> list[EncodedPair]:
    encoder = new_encoder(Mean(16), Cache(folder / "cache"), "auto")
    encoded = []
    for chosen, rejected in zip(CHOSEN, REJECTED, strict=True):
        files = [saved(folder, f"{colour}.png", Image.new("RGB", (16, 16), colour)) for colour in (chosen, rejected)]
        encoded.append(encoder.pair(PairFiles(chosen, chosen, files[0], files[1]), [chosen]))
    return encoded


def measured(of: list[EncodedPair], colours: Sequence[str], count: int = 4) -> tuple[MismatchMeasured, Painter]:
    keys = [pair.prompt_keys[0] for pair in of]
    painter = Painter(dict(zip(keys, colours, strict=True)))
    found = measure_mismatch(
        of,
        painter,  # type: ignore[arg-type]
        Statistics(),
        count,
        seed=1,
        check=lambda: None,
        progress=lambda *_: None,
    )
    return found, painter


def test_a_base_that_samples_the_chosen_images_is_nearer_than_one_that_samples_the_rejected(tmp_path: Path) -> None:
    of = pairs(tmp_path)
    same, _ = measured(of, CHOSEN)
    far, _ = measured(of, REJECTED)
    assert same.similarity == pytest.approx(1.0)
    assert far.similarity < 0.95
    assert (same.images, same.features) == (4, "statistics")


def test_every_prompt_is_sampled_and_again_from_other_noise_where_there_are_few(tmp_path: Path) -> None:
    of = pairs(tmp_path)
    _, painter = measured(of, CHOSEN, count=8)
    keys = [key for key, _, _ in painter.requests]
    assert {key: keys.count(key) for key in keys} == {pair.prompt_keys[0]: 2 for pair in of}
    assert len({seed for _, seed, _ in painter.requests}) == 8
    assert {size for _, _, size in painter.requests} == {Bucket(16, 16)}


def test_chosen_images_are_compared_as_they_are_trained_on(tmp_path: Path) -> None:
    image = Image.new("RGB", (48, 16), "black")
    image.paste("white", (16, 0, 32, 16))
    encoder = new_encoder(Mean(16), Cache(tmp_path / "cache"), "auto")
    shown = as_trained(encoder.image(saved(tmp_path, "wide.png", image), Bucket(16, 16)))
    assert shown.size == (16, 16)
    assert shown.getpixel((8, 8)) == shown.getpixel((4, 1)) == (255, 255, 255)
