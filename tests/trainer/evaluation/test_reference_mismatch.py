"""Reference mismatch on pictures whose distance is known by eye."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from demo.emoji import openmoji
from trainer.data.pairs import pick_diverse
from trainer.evaluation.features import Dinov2, Features, Statistics
from trainer.evaluation.reference_mismatch import THRESHOLDS, Similarity, _resamples, preset_for, similarity
from trainer.runtime.errors import BadRun
from trainer.spec.methods import PRESET_BETAS

pytestmark = pytest.mark.unit

Images = list[Image.Image]


@pytest.fixture(scope="module")
def emoji() -> dict[str, Images]:
    """Forty different emoji: twenty as the base might draw them, and the others in ways that look ever farther away."""
    keys = [one.key for one in openmoji.catalogue()[:240:6]]
    colour = [openmoji.render(key, "color", 64) for key in keys[1::2]]
    noise = np.random.default_rng(0)
    return {
        "drawn": [openmoji.render(key, "color", 64) for key in keys[::2]],
        "alike": colour,
        "blurred": [image.filter(ImageFilter.GaussianBlur(0.7)) for image in colour],
        "line art": [openmoji.render(key, "line", 64) for key in keys[1::2]],
        "one subject": [colour[3]] * len(colour),
        "noise": [Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in colour],
    }


def measured(drawn: Images, chosen: Images, features: Features | None = None) -> Similarity:
    return similarity(drawn, chosen, range(len(drawn)), features or Statistics())


def test_images_that_are_farther_away_are_less_similar(emoji: dict[str, Images]) -> None:
    drawn = emoji["drawn"]
    found = [measured(drawn, chosen).value for name, chosen in emoji.items() if name != "drawn"]
    assert found == sorted(found, reverse=True)
    presets = [preset_for(value, "statistics") for value in found]
    assert presets == ["general", "general", "style", "style", "personalization"]


def test_different_things_in_one_style_are_no_mismatch(emoji: dict[str, Images]) -> None:
    assert measured(emoji["drawn"], emoji["alike"]).value > 0.95


def test_few_images_give_no_mismatch_where_there_is_none(emoji: dict[str, Images]) -> None:
    few = [slice(start, start + 4) for start in range(0, 20, 4)]
    values = [measured(emoji["drawn"][part], emoji["alike"][part]).value for part in few]
    assert np.mean(values) > 0.93


def test_the_size_of_images_hardly_matters(emoji: dict[str, Images]) -> None:
    def larger(images: Images) -> Images:
        return [image.resize((512, 512), Image.Resampling.BICUBIC) for image in images]

    small = measured(emoji["drawn"], emoji["line art"]).value
    assert measured(larger(emoji["drawn"]), larger(emoji["line art"])).value == pytest.approx(small, abs=0.1)


def test_the_interval_holds_the_value_and_narrows_with_more_pairs(emoji: dict[str, Images]) -> None:
    few = measured(emoji["drawn"][:5], emoji["line art"][:5])
    many = measured(emoji["drawn"], emoji["line art"])
    for found in (few, many):
        assert found.low <= found.value <= found.high
    assert many.high - many.low < few.high - few.low


def test_images_of_one_pair_count_as_one_observation(emoji: dict[str, Images]) -> None:
    once = measured(emoji["drawn"][:6], emoji["line art"][:6])
    thrice = similarity(emoji["drawn"][:6] * 3, emoji["line art"][:6] * 3, [*range(6)] * 3, Statistics())
    assert (thrice.value, thrice.low) == pytest.approx((once.value, once.low), abs=0.02)
    assert thrice.images == 18


def test_a_single_pair_sampled_several_times_can_be_measured(emoji: dict[str, Images]) -> None:
    itself = similarity([emoji["drawn"][0]] * 4, [emoji["drawn"][0]] * 4, [0] * 4, Statistics())
    other = similarity(emoji["drawn"][:4], [emoji["line art"][0]] * 4, [0] * 4, Statistics())
    assert itself.value == 1
    assert other.low == other.value == other.high < 0.7


@pytest.mark.parametrize("features", THRESHOLDS)
def test_the_farther_away_the_larger_the_domains_beta(features: str) -> None:
    betas = [PRESET_BETAS[preset_for(value, features)] for value in np.linspace(1, -1, 101)]
    assert betas == sorted(betas)
    assert (betas[0], betas[-1]) == (8.0, 1024.0)


def test_samples_are_spread_over_prompts_and_come_again_where_pairs_are_few() -> None:
    prompts = ["a"] * 50 + ["b"] * 3 + ["c"]
    assert {prompts[at] for at in pick_diverse(prompts, 3)} == {"a", "b", "c"}
    assert sorted(pick_diverse(prompts, 54)) == list(range(54))
    assert pick_diverse(prompts, 5) == pick_diverse(prompts, 5)
    assert sorted(pick_diverse(["a", "b"], 5)) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


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


def tokens(folder: Path, images: Sequence[Image.Image]) -> torch.Tensor:
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(folder).eval()
    pixels = torch.stack([torch.from_numpy(np.array(image.resize((224, 224)))).permute(2, 0, 1) for image in images])
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        hidden = model((pixels / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)).last_hidden_state
    first: torch.Tensor = hidden[:, 0]
    return first


def test_dinov2_compares_each_sampled_image_with_its_pairs_chosen_one(
    saved: Callable[[bool], Path], emoji: dict[str, Images]
) -> None:
    drawn, chosen, folder = emoji["drawn"][:3], emoji["noise"][:3], saved(True)
    found = measured(drawn, chosen, Dinov2(folder, torch.device("cpu")))
    expected = torch.nn.functional.cosine_similarity(tokens(folder, drawn), tokens(folder, chosen), dim=1).mean()
    assert found.value == pytest.approx(float(expected), abs=1e-3)
    assert found.features == "dinov2"
    assert measured(drawn, drawn, Dinov2(folder, torch.device("cpu"))).low == pytest.approx(1)


def test_a_pickled_dinov2_is_refused(saved: Callable[[bool], Path]) -> None:
    with pytest.raises(BadRun, match="safetensors") as refused:
        Dinov2(saved(False), torch.device("cpu"))
    (field_error,) = refused.value.field_errors
    assert (field_error.field, field_error.given) == ("dinov2", "dino")


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes)).save_pretrained(tmp_path / "vit")
    with pytest.raises(BadRun, match="of type vit"):
        Dinov2(tmp_path / "vit", torch.device("cpu"))


def test_the_interval_holds_95_of_100_resamples(emoji: dict[str, Images]) -> None:
    drawn, chosen, pairs = emoji["drawn"][:8], emoji["line art"][:8], range(8)
    found, statistics = measured(drawn, chosen), Statistics()
    shown, wanted = (np.stack([statistics.vector(image) for image in images]) for images in (drawn, chosen))
    values = np.asarray(statistics.similarity(shown, wanted, pairs, _resamples(pairs)))
    for share in (np.mean(values < found.low), np.mean(values > found.high)):
        assert share == pytest.approx(0.025, abs=0.01)
