"""What a training batch holds of each pair: its own noise, latents that are sampled, its prompt or none, one flip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.cache.cache import Cache, key_of
from trainer.data.batches import Batch, Batches
from trainer.data.encoding import EncodedImage, EncodedPair
from trainer.data.noise import training_draw
from trainer.run_directory.run import ImageFile
from trainer.spec.buckets import Bucket, centre_crop

pytestmark = pytest.mark.unit

SHAPE = (4, 2, 2)
SEED = 3
EMPTY, CLASS = key_of(prompt=""), key_of(prompt="class")
SIGMAS = 4.5  # that a share of draws may be off before a test fails: by chance once in 150,000 times


def image(cache: Cache, name: str, mean: float, *, std: float = 0.0, mirrored: bool = False, width: int = 8) -> Any:
    """Of constant moments; its mirror, where it may be used, has the negative mean."""
    key = key_of(image=name)
    cache.write(key, {"mean": torch.full(SHAPE, mean), "std": torch.full(SHAPE, std)})
    mirror = image(cache, f"{name}, mirrored", -mean, std=std, width=width) if mirrored else None
    file = ImageFile(Path(f"{name}.png"), name, (width, 8))
    return EncodedImage(key, file, centre_crop(file.size, Bucket(8, 8)), mirror=mirror)


def pair(cache: Cache, name: str, mean: float = 1.0, *, captions: int = 1, **options: Any) -> EncodedPair:
    """Chosen at ``mean``, rejected 100 above it; caption ``i`` is encoded as ``mean + i / 10``."""
    keys = tuple(key_of(prompt=name, caption=index) for index in range(captions))
    for index, key in enumerate(keys):
        cache.write(key, {"hidden": torch.tensor([mean + index / 10])})
    chosen = image(cache, f"{name} chosen", mean, **options)
    rejected = image(cache, f"{name} rejected", mean + 100, **options)
    return EncodedPair(name, Bucket(8, 8), keys, (chosen, rejected))


def thousandth(share: float) -> float:
    return 1000 * share


def batches(cache: Cache, **changes: Any) -> Batches:
    cache.write(EMPTY, {"hidden": torch.tensor([0.0])})
    cache.write(CLASS, {"hidden": torch.tensor([-7.0])})
    plain: dict[str, Any] = {
        "seed": SEED,
        "sides": 2,
        "timestep_at": thousandth,
        "prompt_dropout": 0.0,
        "empty_prompt_key": EMPTY,
    }
    return Batches(cache, **plain | changes)


def trio(cache: Cache, **options: Any) -> list[EncodedPair]:
    return [pair(cache, name, mean, **options) for name, mean in (("a", 1.0), ("b", 2.0), ("c", 3.0))]


def test_a_batch_has_its_pairs_weights(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs = [replace(one, weight=weight) for one, weight in zip(trio(cache), (0.5, 1.5, 1.0), strict=True)]
    batch = batches(cache).batch(pairs, step=1)
    assert batch.weights is not None
    assert batch.weights.tolist() == [0.5, 1.5, 1.0]
    assert batch.side(1).weights is batch.weights


def words(batch: Batch) -> list[float]:
    return [round(word, 3) for word in batch.prompt["hidden"].flatten().tolist()]


def sides(batch: Batch) -> tuple[Tensor, Tensor]:
    chosen, rejected = batch.latents.chunk(2)
    return chosen, rejected


def near(share: float, draws: int) -> Any:
    return pytest.approx(share, abs=SIGMAS * (share * (1 - share) / draws) ** 0.5)


def test_each_pair_has_the_draw_of_its_own_key_on_both_sides(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    batch = batches(cache).batch(trio(cache, std=0.5), step=9)
    chosen, rejected = sides(batch)
    for row, (name, mean) in enumerate((("a", 1.0), ("b", 2.0), ("c", 3.0))):
        drawn = training_draw(SHAPE, seed=SEED, pair=name, step=9, prompt_dropout=0.0)
        assert torch.equal(batch.noise[row], drawn.noise)
        assert batch.timesteps[row].item() == pytest.approx(1000 * drawn.share)
        torch.testing.assert_close(chosen[row], mean + 0.5 * drawn.posterior)
        torch.testing.assert_close(rejected[row], mean + 100 + 0.5 * drawn.posterior)
    assert batch.timesteps.dtype == torch.float32


def test_another_pair_step_or_seed_has_other_noise_timestep_and_latents(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs = [pair(cache, "a", std=0.5), pair(cache, "b", std=0.5)]
    one, other_pair = (batches(cache).batch([of], step=9) for of in pairs)
    other_step, other_seed = batches(cache).batch(pairs[:1], step=10), batches(cache, seed=4).batch(pairs[:1], step=9)
    for other in (other_pair, other_step, other_seed):
        assert not torch.isclose(one.noise, other.noise).any()
        assert not torch.isclose(one.latents, other.latents).any()
        assert one.timesteps != other.timesteps


def test_a_resumed_run_draws_what_the_straight_one_would_have(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs = trio(cache, std=0.5, mirrored=True, captions=2)
    straight = batches(cache, prompt_dropout=0.5)
    for step in range(1, 9):
        straight.batch(pairs, step)
    expected = straight.batch(pairs, step=9)
    resumed = batches(Cache(tmp_path), prompt_dropout=0.5).batch(pairs, step=9)
    for name in ("latents", "noise", "timesteps", "size_ids"):
        assert torch.equal(getattr(resumed, name), getattr(expected, name)), name
    assert words(resumed) == words(expected)


def test_latents_are_samples_of_the_posterior_apart_from_the_noise(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    of = pair(cache, "a", 3.0, std=2.0)
    drawn = [batches(cache).batch([of], step) for step in range(500)]
    latents, noise = (torch.stack([getattr(one, name)[0] for one in drawn]).flatten() for name in ("latents", "noise"))
    count = len(latents)
    assert latents.mean().item() == pytest.approx(3.0, abs=SIGMAS * 2 / count**0.5)
    assert latents.std().item() == pytest.approx(2.0, abs=SIGMAS * 2 / (2 * count) ** 0.5)
    within = ((latents - 3.0).abs() < 2.0).float().mean().item()
    assert within == near(NormalDist().cdf(1) - NormalDist().cdf(-1), count)
    assert abs(torch.corrcoef(torch.stack([latents, noise]))[0, 1].item()) < SIGMAS / count**0.5


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.6])
def test_the_empty_prompt_replaces_its_share_of_prompts_and_no_other(tmp_path: Path, dropout: float) -> None:
    cache = Cache(tmp_path)
    pairs, loader = trio(cache), batches(cache, prompt_dropout=dropout)
    seen = Counter(tuple(words(loader.batch(pairs, step))) for step in range(700))
    dropped = [sum(count for row, count in seen.items() if row[index] == 0.0) for index in range(3)]
    assert sum(dropped) / 2100 == near(dropout, 2100)
    assert {word for row in seen for word in row} <= {0.0, 1.0, 2.0, 3.0}
    assert all(row[index] in (0.0, index + 1.0) for row in seen for index in range(3))
    together = seen[(0.0, 0.0, 0.0)] / 700
    assert together == near(dropout**3, 700)  # each pair by itself, not the batch


def test_each_caption_template_gets_its_share_and_only_of_its_own_pair(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs, loader = trio(cache, captions=3), batches(cache)
    drawn = [words(loader.batch(pairs, step)) for step in range(700)]
    for index in range(3):
        seen = Counter(row[index] for row in drawn)
        assert seen.keys() == {round(index + 1 + caption / 10, 3) for caption in range(3)}
        assert all(count / 700 == near(1 / 3, 700) for count in seen.values())


def test_half_of_the_pairs_are_mirrored_with_both_their_images(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs, loader = trio(cache, mirrored=True), batches(cache)
    mirrored = []
    for step in range(700):
        chosen, rejected = (side[:, 0, 0, 0] < 0 for side in sides(loader.batch(pairs, step)))
        assert torch.equal(chosen, rejected)
        mirrored.append(chosen)
    shares = torch.stack(mirrored).double().mean(dim=0).tolist()
    assert all(share == near(0.5, 700) for share in shares)


def test_pairs_that_may_not_be_mirrored_never_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs, loader = trio(cache), batches(cache)
    assert all((loader.batch(pairs, step).latents > 0).all() for step in range(30))


def test_timesteps_are_spread_over_the_whole_range(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs, loader = trio(cache), batches(cache)
    timesteps = torch.cat([loader.batch(pairs, step).timesteps for step in range(700)])
    deciles = torch.histc(timesteps, bins=10, min=0, max=1000) / len(timesteps)
    assert all(share == near(0.1, len(timesteps)) for share in deciles.tolist())


def test_what_a_pairs_images_have_apart_stands_by_side(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs = trio(cache)
    rejected = image(cache, "wide", 50.0, width=16)
    wide = [replace(one, images=(one.images[0], rejected)) for one in pairs]
    batch = batches(cache).batch(wide, step=1)
    assert batch.latents[:, 0, 0, 0].tolist() == [1.0, 2.0, 3.0, 50.0, 50.0, 50.0]
    assert batch.size_ids[:, 1].tolist() == [8.0] * 6  # the chosen images', of both
    assert batch.side(1).latents[:, 0, 0, 0].tolist() == [50.0] * 3
    assert batch.side(1).size_ids[:, 1].tolist() == [8.0] * 3


def test_methods_that_train_on_chosen_images_alone_get_no_others(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    batch = batches(cache, sides=1).batch(trio(cache), step=1)
    assert (batch.sides, batch.latents[:, 0, 0, 0].tolist()) == (1, [1.0, 2.0, 3.0])
    assert batch.prior is None


def test_each_pair_has_a_class_image_of_its_own_draw_under_the_class_prompt(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    images = [image(cache, f"class {index}", 10.0 * index, std=0.01) for index in range(4)]
    loader = batches(cache, sides=1, class_images=images, class_prompt_key=CLASS, prompt_dropout=0.9)
    pairs, seen = trio(cache), Counter[int]()
    for step in range(300):
        batch = loader.batch(pairs, step)
        prior = batch.prior
        assert prior is not None
        assert (len(prior.pairs), prior.sides, words(prior)) == (3, 1, [-7.0] * 3)
        assert not torch.isclose(prior.noise, batch.noise).any()
        assert not torch.isclose(prior.timesteps, batch.timesteps).any()
        seen.update(round(mean / 10) for mean in prior.latents.mean(dim=(1, 2, 3)).tolist())
        assert (prior.latents != prior.latents.round()).all()  # sampled too
    assert seen.keys() == {0, 1, 2, 3}
    assert all(count / 900 == near(0.25, 900) for count in seen.values())
