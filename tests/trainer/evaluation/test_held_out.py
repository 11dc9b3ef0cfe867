from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.training.test_step import Network, Plain
from trainer.cache.cache import Cache, key_of
from trainer.data.encoding import EncodedImage, EncodedPair
from trainer.data.noise import keyed_generator, validation_noise
from trainer.evaluation.held_out import (
    HeldOutLosses,
    WeightedPairs,
    held_out_losses,
    metrics,
    outcomes,
    pairs_within_budget,
)
from trainer.objectives.objective import Objective, required
from trainer.run_directory.run import ImageFile
from trainer.run_directory.split import select_by_hash
from trainer.runtime.errors import NonFiniteLoss, OutOfMemory
from trainer.runtime.signals import StopRequest
from trainer.spec.buckets import Bucket, centre_crop

pytestmark = pytest.mark.unit


SUM_OF_BOTH = Objective(
    lambda pair: pair.chosen + 10 * required(pair.rejected), uses_rejected=True, uses_reference=False
)
AGAINST_BASE = Objective(
    lambda pair: pair.chosen - required(pair.reference_chosen), uses_rejected=False, uses_reference=True
)


def losses(chosen: list[list[float]], rejected: list[list[float]]) -> HeldOutLosses:
    timesteps = tuple(float(100 * draw) for draw in range(len(chosen[0])))
    return HeldOutLosses(tuple("abc"[: len(chosen)]), timesteps, torch.tensor(chosen), torch.tensor(rejected))


def test_ties_count_one_half() -> None:
    assert outcomes(np.array([1.0, 0.0, -1.0, 2.0])).tolist() == [1, 0.5, 0, 1]


def test_a_pair_is_judged_by_its_mean_over_draws() -> None:
    # Pair a: chosen 0.2 against rejected 0.3 in the mean, though its second draw says otherwise. Pair b the reverse.
    measured = losses([[0.1, 0.3], [0.4, 0.4]], [[0.5, 0.1], [0.5, 0.1]])
    base = losses([[0.2, 0.2], [0.9, 0.9]], [[0.1, 0.1], [0.6, 0.6]])
    result = metrics(3, measured, base, SUM_OF_BOTH, last_good_step=0)
    assert result.implicit_accuracy == 0.5
    assert result.base_implicit_accuracy == 0.0
    assert result.reference_corrected_accuracy == 1.0  # margins rose from -0.1 and -0.3 to +0.1 and -0.1
    assert result.margin == pytest.approx(0.0, abs=1e-7)
    assert (result.chosen_loss, result.rejected_loss) == pytest.approx((0.3, 0.3))
    assert result.objective == pytest.approx(0.3 + 10 * 0.3)
    assert (result.pairs, result.draws) == (2, 2)


def test_the_interval_of_a_sure_thing_is_a_point_and_of_60_in_100_about_ten_points_each_way() -> None:
    assert WeightedPairs(np.ones(5)).interval(np.ones(5)) == (1.0, 1.0)
    hundred = WeightedPairs(np.ones(100))
    low, high = hundred.interval(np.array([1.0] * 60 + [0.0] * 40))
    assert (low, high) == pytest.approx((0.504, 0.696), abs=0.015)  # 0.6 -+ 1.96 sqrt(0.24 / 100)
    assert hundred.interval(np.array([1.0] * 60 + [0.0] * 40)) == (low, high)


def test_changes_are_against_the_base_pair_by_pair() -> None:
    """Both pairs gain the same, so that is certain, however different the pairs are from each other."""
    base = losses([[0.2], [0.8]], [[0.3], [0.3]])
    result = metrics(1, losses([[0.1], [0.7]], [[0.3], [0.3]]), base, SUM_OF_BOTH, last_good_step=0)
    change = (result.chosen_loss_change, result.chosen_loss_change_low, result.chosen_loss_change_high)
    assert change == pytest.approx((-0.1, -0.1, -0.1))
    assert result.objective_change == pytest.approx(-0.1)
    assert result.margin_change == pytest.approx(0.1)


def test_a_pair_of_three_times_the_weight_counts_as_three_pairs() -> None:
    """By hand: pair a has weight 3 and pair b weight 1, so that a figure is (3 a + b) / 4."""
    measured = losses([[0.1, 0.3], [0.4, 0.4]], [[0.5, 0.1], [0.5, 0.1]])  # means: a 0.2, 0.3; b 0.4, 0.3
    base = losses([[0.2, 0.2], [0.9, 0.9]], [[0.1, 0.1], [0.6, 0.6]])
    result = metrics(3, measured, base, SUM_OF_BOTH, weights={"a": 3.0, "b": 1.0, "c": 9.0}, last_good_step=0)
    assert (result.chosen_loss, result.rejected_loss) == pytest.approx((0.25, 0.3))
    assert result.objective == pytest.approx((3 * (0.2 + 3) + (0.4 + 3)) / 4)
    assert result.margin == pytest.approx((3 * 0.1 - 0.1) / 4)
    assert result.implicit_accuracy == 0.75
    assert (result.base_chosen_loss, result.base_rejected_loss) == pytest.approx((0.375, 0.225))
    assert result.objective_change == pytest.approx((3 * (3.2 - 1.2) + (3.4 - 6.9)) / 4)
    assert result.chosen_loss_change == pytest.approx((3 * 0.0 - 0.5) / 4)
    assert result.chosen_loss_change_low == pytest.approx(-0.5)  # some resamples are pair b alone
    assert result.bins[0].chosen_loss == pytest.approx((3 * 0.1 + 0.4) / 4)
    assert result.bins[1].implicit_accuracy == 0.0
    assert result.bins[0].implicit_accuracy == 1.0
    same = [metrics(3, measured, base, SUM_OF_BOTH, weights=of, last_good_step=0) for of in (None, {"a": 7, "b": 7})]
    assert same[0].objective == pytest.approx(same[1].objective)


def test_each_timestep_has_a_row() -> None:
    base = losses([[0.2, 0.2], [0.2, 0.2]], [[0.1, 0.3], [0.1, 0.3]])
    result = metrics(1, losses([[0.1, 0.4], [0.3, 0.4]], [[0.2, 0.2], [0.2, 0.2]]), base, SUM_OF_BOTH, last_good_step=0)
    assert [row.timestep for row in result.bins] == [0.0, 100.0]
    assert [row.implicit_accuracy for row in result.bins] == [0.5, 0.0]
    assert [row.base_implicit_accuracy for row in result.bins] == [0.0, 1.0]
    assert [row.chosen_loss for row in result.bins] == pytest.approx([0.2, 0.4])


def test_an_evaluation_of_some_pairs_is_compared_with_the_base_on_the_same() -> None:
    base = losses([[0.9], [0.2], [0.5]], [[0.0], [0.1], [0.9]])
    some = HeldOutLosses(("c", "b"), (0.0,), torch.tensor([[0.4], [0.2]]), torch.tensor([[0.9], [0.1]]))
    result = metrics(1, some, base, AGAINST_BASE, last_good_step=0)
    assert result.pairs == 2
    assert result.base_chosen_loss == pytest.approx(0.35)
    assert result.objective == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("every", "effective_batch_size", "draws"), [(75, 8, 4), (500, 8, 4), (100, 1, 1), (50, 128, 10)]
)
def test_an_evaluation_costs_at_most_a_twentieth_of_the_steps_before_it(
    every: int, effective_batch_size: int, draws: int
) -> None:
    pairs = pairs_within_budget(every=every, effective_batch_size=effective_batch_size, draws=draws, available=10**6)
    assert pairs > 2
    assert 2 * pairs * draws <= 0.05 * every * effective_batch_size * 2.5
    assert 2 * (pairs + 1) * draws > 0.05 * every * effective_batch_size * 2.5
    assert pairs_within_budget(every=every, effective_batch_size=effective_batch_size, draws=draws, available=3) == 3


def test_at_least_two_pairs_are_measured_however_short_the_run() -> None:
    assert pairs_within_budget(every=1, effective_batch_size=1, draws=4, available=100) == 2


def test_a_pair_without_a_finite_loss_is_named() -> None:
    good = losses([[0.1], [0.1]], [[0.1], [0.1]])
    bad = losses([[0.1], [float("nan")]], [[0.1], [0.1]])
    with pytest.raises(NonFiniteLoss, match="step 7, pairs b") as raised:
        metrics(7, bad, good, SUM_OF_BOTH, last_good_step=4)
    assert raised.value.pairs == ("b",)


class Nothing:
    """A denoiser that predicts zeros where the latents are the target: its loss is their mean square."""

    def add_noise(self, latents: Tensor, _noise: Tensor, _timesteps: Tensor) -> Tensor:
        return latents

    def target(self, latents: Tensor, _noise: Tensor, _timesteps: Tensor) -> Tensor:
        return latents

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return prompt

    def predict(self, noisy: Tensor, _timesteps: Tensor, _prompt: Mapping[str, Tensor], _sizes: Tensor) -> Tensor:
        return torch.zeros_like(noisy)


def test_each_side_is_measured_on_its_own_image_pair_by_pair(tmp_path: Path) -> None:
    """In two buckets, so that pairs are measured in another order than they are given in."""
    cache, pairs = Cache(tmp_path), []
    cache.write("prompt", {"hidden": torch.zeros(1)})
    for number, side in enumerate((8, 16, 8), start=1):
        bucket, images = Bucket(side, side), []
        for name, value in (("chosen", number), ("rejected", 10 * number)):
            key = f"{number}-{name}"
            cache.write(key, {"mean": torch.full((4, side // 8, side // 8), float(value)), "std": torch.zeros(1)})
            file = ImageFile(tmp_path / key, key, (side, side))
            images.append(EncodedImage(key, file, centre_crop(file.size, bucket)))
        pairs.append(EncodedPair(str(number), bucket, ("prompt",), tuple(images)))
    measured = held_out_losses(
        Nothing(),  # type: ignore[arg-type]
        pairs,
        cache,
        draws=2,
        timestep_at=lambda share: share,
        batch_size=2,
        device=torch.device("cpu"),
        stop=StopRequest(),
        progress=lambda *_: None,
    ).of(["1", "2", "3"])
    assert measured.chosen.tolist() == [[1, 1], [4, 4], [9, 9]]
    assert measured.rejected.tolist() == [[100, 100], [400, 400], [900, 900]]
    result = metrics(0, measured, measured, SUM_OF_BOTH, last_good_step=0)
    assert result.implicit_accuracy == 1
    assert result.margin == pytest.approx((99 + 396 + 891) / 3)


def stored(cache: Cache, name: str, *, width: int = 8) -> EncodedPair:
    """Two images whose deviations are no part of what is measured, and two captions of which the first counts."""
    generator, size = keyed_generator("stored", name), Bucket(width, 8)
    images = []
    for side in ("chosen", "rejected"):
        key = key_of(image=name, side=side)
        cache.write(key, {name: torch.randn(4, 3, 3, generator=generator) for name in ("mean", "std")})
        images.append(EncodedImage(key, ImageFile(Path(name), name, (8, 8)), centre_crop((8, 8), size)))
    keys = tuple(key_of(prompt=name, caption=caption) for caption in range(2))
    for key in keys:
        cache.write(key, {"word": torch.randn((), generator=generator)})
    return EncodedPair(name, size, keys, tuple(images))


def measured(cache: Cache, pairs: list[EncodedPair], batch_size: int, denoiser: Plain | None = None) -> HeldOutLosses:
    return held_out_losses(
        denoiser or Plain(Network()),  # type: ignore[arg-type]
        pairs,
        cache,
        draws=3,
        timestep_at=lambda share: 1000 * share,
        batch_size=batch_size,
        device=torch.device("cpu"),
        stop=StopRequest(),
        progress=lambda *_: None,
    )


class Small(Plain):
    """On a device that two images fit."""

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], _sizes: Tensor) -> Tensor:
        if len(noisy) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().predict(noisy, timesteps, prompt, _sizes)


def test_pairs_that_do_not_fit_together_are_measured_in_smaller_parts(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs = [stored(cache, name) for name in "abcde"]
    whole, parts = (measured(cache, pairs, 4, Plain(Network())), measured(cache, pairs, 4, Small(Network())))
    assert parts.pairs == whole.pairs
    torch.testing.assert_close(parts.chosen, whole.chosen)
    torch.testing.assert_close(parts.rejected, whole.rejected)


class Full(Plain):
    def predict(self, *_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_single_pair_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(OutOfMemory, match="batch_size 1 "):
        measured(cache, [stored(cache, name) for name in "ab"], 2, Full(Network()))


def test_a_pair_is_measured_on_its_own_noise_at_each_timestep_and_on_the_means_of_its_images(tmp_path: Path) -> None:
    cache, network = Cache(tmp_path), Network()
    pairs = [stored(cache, name) for name in "abc"]
    found = measured(cache, pairs, batch_size=2)
    assert found.pairs == ("a", "b", "c")
    assert found.timesteps == pytest.approx((1000 / 6, 500.0, 5000 / 6))
    for row, pair in enumerate(pairs):
        for draw, timestep in enumerate(found.timesteps):
            noise, share = validation_noise((4, 3, 3), pair=pair.id, draw=draw), timestep / 1000
            for image, side in zip(pair.images, (found.chosen, found.rejected), strict=True):
                noisy = (1 - share) * cache.read(image.key)["mean"] + share * noise
                word = cache.read(pair.prompt_keys[0])["word"]
                predicted = network(noisy[None], torch.tensor([timestep]), word[None])[0]
                assert side[row, draw].item() == pytest.approx((predicted - noise).square().mean().item(), rel=1e-4)


def test_what_is_measured_does_not_depend_on_how_many_are_measured_together(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pairs = [stored(cache, name, width=8 if name in "ac" else 16) for name in "abcde"]
    one_by_one = measured(cache, pairs, batch_size=1)
    assert sorted(one_by_one.pairs) == ["a", "b", "c", "d", "e"]
    for batch_size in (2, 5):
        together = measured(cache, pairs, batch_size).of(one_by_one.pairs)
        torch.testing.assert_close(together.chosen, one_by_one.chosen)
        torch.testing.assert_close(together.rejected, one_by_one.rejected)
    assert len(set(one_by_one.chosen.flatten().tolist())) == one_by_one.chosen.numel()


def test_the_pairs_that_are_measured_are_the_same_wherever_they_stand_in_the_data(tmp_path: Path) -> None:
    pairs = [stored(Cache(tmp_path), f"pair {index}") for index in range(12)]
    chosen = select_by_hash(pairs, 4)
    assert len(chosen) == 4
    assert select_by_hash(pairs[::-1], 4) == chosen
    assert select_by_hash(pairs[3:] + pairs[:3], 4) == chosen
    assert chosen != pairs[:4]
    assert len(select_by_hash(pairs, 100)) == 12


def test_losses_of_some_pairs_come_in_the_order_in_which_they_were_requested() -> None:
    of = losses([[0.1], [0.2], [0.3]], [[0.4], [0.5], [0.6]]).of(["c", "a"])
    assert of.pairs == ("c", "a")
    torch.testing.assert_close(of.chosen, torch.tensor([[0.3], [0.1]]))
    torch.testing.assert_close(of.rejected, torch.tensor([[0.6], [0.4]]))


def test_an_interval_holds_the_truth_in_about_95_of_100_samples() -> None:
    covered = 0
    for seed in range(200):
        low, high = WeightedPairs(np.ones(60)).interval(np.random.default_rng(seed).normal(0.3, 1.0, 60))
        covered += low <= 0.3 <= high
    assert 178 <= covered <= 198  # 190 in the mean, 4 sigma are 12; of a bootstrap of 60 a little fewer


def test_each_sides_mean_loss_is_reported_as_its_own_next_to_the_bases() -> None:
    found = metrics(
        1, losses([[0.1, 0.3]], [[0.5, 0.7]]), losses([[0.2, 0.2]], [[0.9, 0.9]]), SUM_OF_BOTH, last_good_step=0
    )
    assert [found.chosen_loss, found.rejected_loss] == pytest.approx([0.2, 0.6])
    assert [found.base_chosen_loss, found.base_rejected_loss] == pytest.approx([0.2, 0.9])


def test_reference_corrected_accuracy_counts_against_the_base_and_implicit_accuracy_does_not() -> None:
    base = losses([[0.1], [0.1]], [[0.5], [0.5]])
    result = metrics(1, losses([[0.1], [0.1]], [[0.4], [0.6]]), base, SUM_OF_BOTH, last_good_step=0)
    assert (result.implicit_accuracy, result.base_implicit_accuracy) == (1.0, 1.0)
    assert result.reference_corrected_accuracy == 0.5
    assert result.objective_change == pytest.approx(0.0)
