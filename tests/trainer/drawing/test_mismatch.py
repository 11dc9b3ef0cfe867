"""Reference mismatch on pictures whose distance is known by eye."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from demo import openmoji
from trainer.drawing.features import Dinov2, Statistics
from trainer.drawing.mismatch import THRESHOLDS, preset_for, similarity, spread
from trainer.errors import BadRun

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def emoji() -> dict[str, list[Image.Image]]:
    keys = [one.key for one in openmoji.catalogue()[:200:10]]
    colour = [openmoji.render(key, "color", 64) for key in keys]
    noise = np.random.default_rng(0)
    return {
        "itself": colour,
        "blurred": [image.filter(ImageFilter.GaussianBlur(1.2)) for image in colour],
        "recoloured": [Image.merge("RGB", image.split()[::-1]) for image in colour],
        "line art": [openmoji.render(key, "line", 64) for key in keys],
        "noise": [Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in keys],
    }


def test_pictures_that_look_farther_away_are_less_similar(emoji: dict[str, list[Image.Image]]) -> None:
    found = [similarity(other, emoji["itself"], Statistics()).mean for other in emoji.values()]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1)
    presets = [preset_for(mean, "statistics") for mean in found]
    assert presets == ["general", "general", "culture", "style", "personalization"]


def test_the_interval_holds_the_mean_and_narrows_with_more_images(emoji: dict[str, list[Image.Image]]) -> None:
    few = similarity(emoji["line art"][:4], emoji["itself"][:4], Statistics())
    many = similarity(emoji["line art"], emoji["itself"], Statistics())
    assert few.low <= few.mean <= few.high
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("features", THRESHOLDS)
def test_the_farther_away_the_larger_the_domains_beta(features: str) -> None:
    from trainer.spec.methods import PRESET_BETAS

    betas = [PRESET_BETAS[preset_for(value, features)] for value in np.linspace(1, -1, 101)]
    assert betas == sorted(betas)
    assert (betas[0], betas[-1]) == (8.0, 1024.0)


def test_samples_are_spread_over_prompts_whatever_the_order_of_the_data() -> None:
    prompts = ["a"] * 50 + ["b"] * 3 + ["c"]
    assert {prompts[at] for at in spread(prompts, 3)} == {"a", "b", "c"}
    assert sorted(spread(prompts, 100)) == list(range(54))
    assert spread(prompts, 5) == spread(prompts, 5)


def tiny_dinov2(folder: Path, *, safe: bool = True) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bool], Path]:
    return lambda safe: tiny_dinov2(tmp_path / "dino", safe=safe)


def test_dinov2_is_used_where_the_operator_has_it(
    saved: Callable[[bool], Path], emoji: dict[str, list[Image.Image]]
) -> None:
    features = Dinov2(saved(True), torch.device("cpu"))
    assert features.similarity(emoji["itself"][0], emoji["itself"][0]) == pytest.approx(1, abs=1e-5)
    assert features.similarity(emoji["itself"][0], emoji["noise"][0]) < 0.999


def test_a_pickled_dinov2_is_refused(saved: Callable[[bool], Path]) -> None:
    with pytest.raises(BadRun, match="safetensors"):
        Dinov2(saved(False), torch.device("cpu"))
