"""A step's gradient, on a network small enough to see through."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.data.batches import Batch
from trainer.evaluation.losses import denoising_losses, reference_losses
from trainer.objectives.dco import dco_loss
from trainer.objectives.dpo import dpo_loss
from trainer.objectives.mapo import paper_loss
from trainer.objectives.objective import Objective, PairLosses, required
from trainer.objectives.sft import dreambooth_loss, sft_loss
from trainer.recipe import objective_of
from trainer.spec.run import TrainingOptions
from trainer.training.step import (
    GROWS_AFTER,
    SMALLEST,
    GradientOverflow,
    GradientScale,
    backward_joint,
    backward_streamed,
    training_step,
    weighted,
)
from trainer.training.trainable import new_optimizer

pytestmark = pytest.mark.unit


def objective(method: str, beta: float | None = None, **hyperparameters: Any) -> Objective:
    chosen = {"type": method, method: {"hyperparameters": hyperparameters}}
    return objective_of(TrainingOptions.model_validate({"method": chosen}).method, beta, num_train_timesteps=1000)


OBJECTIVES = {
    "mapo": objective("mapo", 64.0),
    "mapo reference code": objective("mapo", 0.1, form="reference-code"),
    "dpo": objective("dpo", 200.0),
    "dco": objective("dco", 50.0),
    "sft": objective("sft"),
    "dreambooth": objective("dreambooth", prior_weight=0.5, class_prompt="a drawing of a thing"),
}


class Network(nn.Module):
    """A nonlinear base plus a small change, the adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Parameter(torch.full((4,), 0.1))
        self.enabled = True

    def forward(self, noisy: Tensor, timesteps: Tensor, prompt: Tensor) -> Tensor:
        scale = 0.3 + (self.adapter if self.enabled else torch.zeros(4))
        return torch.tanh(noisy * scale.view(1, 4, 1, 1) + prompt.view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) / 1e4)


@dataclass
class Plain:
    """The part of Denoiser that a step uses."""

    network: Network
    dtype: torch.dtype = torch.float32

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        share = (timesteps / 1000).view(-1, 1, 1, 1)
        return (1 - share) * latents + share * noise

    def target(self, _latents: Tensor, noise: Tensor, _timesteps: Tensor) -> Tensor:
        return noise

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return prompt

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], _sizes: Tensor) -> Tensor:
        result: Tensor = self.network(noisy, timesteps, prompt["word"])
        return result

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        self.network.enabled = False
        yield
        self.network.enabled = True


def batch(pairs: int, sides: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        pairs=tuple(f"{seed}-{index}" for index in range(pairs)),
        latents=torch.randn(sides * pairs, 4, 3, 3, generator=generator),
        noise=torch.randn(pairs, 4, 3, 3, generator=generator),
        timesteps=torch.tensor([100.0, 500.0, 900.0, 300.0])[:pairs],
        prompt={"word": torch.randn(pairs, generator=generator)},
        size_ids=torch.zeros(sides * pairs, 6),
    )


def batch_for(objective: str, pairs: int = 3, seed: int = 0) -> Batch:
    plain = batch(pairs, sides=2 if OBJECTIVES[objective].uses_rejected else 1, seed=seed)
    if objective != "dreambooth":
        return plain
    return Batch(**{**vars(plain), "prior": batch(pairs, sides=1, seed=seed + 100)})


def gradient(backward: Any, objective: Objective, of: Batch) -> tuple[Tensor, Tensor]:
    network = Network().double()
    losses = backward(Plain(network), of, objective, len(of.pairs))
    assert network.adapter.grad is not None
    return network.adapter.grad, losses


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_streamed_pair_has_the_same_losses_and_the_exact_gradient(name: str) -> None:
    given = batch_for(name)
    joint, joint_losses = gradient(backward_joint, OBJECTIVES[name], given)
    streamed, streamed_losses = gradient(backward_streamed, OBJECTIVES[name], given)
    torch.testing.assert_close(streamed, joint, rtol=1e-5, atol=1e-7)  # the objectives compute in fp32
    torch.testing.assert_close(streamed_losses, joint_losses)
    assert joint.abs().min() > 1e-6


@pytest.mark.parametrize("backward", [backward_joint, backward_streamed])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_pairs_weight_multiplies_its_loss_and_its_gradient(name: str, backward: Any) -> None:
    """By hand: of two pairs with weights 3 and 0.5, the gradient is (3 g1 + 0.5 g2) / 2."""
    given, objective = batch_for(name, pairs=2), OBJECTIVES[name]
    weights = torch.tensor([3.0, 0.5])
    found, losses = gradient(backward, objective, replace(given, weights=weights))
    _, unweighted = gradient(backward, objective, given)
    torch.testing.assert_close(losses[0], weights * unweighted[0])
    torch.testing.assert_close(losses[1:], unweighted[1:])  # what the network's losses are stays visible
    each = [replace(alone(given, at), prior=alone(given.prior, at) if given.prior else None) for at in range(2)]
    [first, second] = [gradient(backward, objective, one)[0] for one in each]
    torch.testing.assert_close(found, (3 * first + 0.5 * second) / 2, rtol=1e-5, atol=1e-7)


def test_weights_count_in_numbers_worked_by_hand() -> None:
    """Losses of chosen and rejected images 0.5 and 1.0, then 0.2 and 0.1; of the reference 0.4 and 0.8, then 0.4 and
    0.3; weights 2 and 1; beta 2."""
    chosen, rejected = torch.tensor([0.5, 0.2]), torch.tensor([1.0, 0.1])
    reference_chosen, reference_rejected = torch.tensor([0.4, 0.4]), torch.tensor([0.8, 0.3])
    of_pairs = replace(batch(2, sides=2), weights=torch.tensor([2.0, 1.0]))

    def by_hand(values: Tensor) -> list[float]:
        return weighted(values, of_pairs).tolist()

    assert by_hand(sft_loss(chosen)) == pytest.approx([2 * 0.5, 0.2])
    assert by_hand(dreambooth_loss(chosen, rejected, prior_weight=0.5)) == pytest.approx([2 * (0.5 + 0.5), 0.25])
    # -log sigmoid(x) = log(1 + exp(-x)), x = -2 (0.5 - 0.4) and -2 (0.2 - 0.4)
    dco = by_hand(dco_loss(chosen, reference_chosen, beta=2.0))
    assert dco == pytest.approx([2 * math.log(1 + math.exp(0.2)), math.log(1 + math.exp(-0.4))])
    # x = -((0.5 - 1.0) - (0.4 - 0.8)) = 0.1 and -((0.2 - 0.1) - (0.4 - 0.3)) = 0
    dpo = by_hand(dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta=2.0))
    assert dpo == pytest.approx([2 * math.log(1 + math.exp(-0.1)), math.log(2)])
    # f(x) = x / (e^x - 1), beta 1: L_w + log(1 + exp(f(L_l) - f(L_w)))
    f = {loss: loss / (math.exp(loss) - 1) for loss in (0.1, 0.2, 0.5, 1.0)}
    mapo = by_hand(paper_loss(chosen, rejected, beta=1.0))
    assert mapo == pytest.approx(
        [2 * (0.5 + math.log(1 + math.exp(f[1.0] - f[0.5]))), 0.2 + math.log(1 + math.exp(f[0.1] - f[0.2]))]
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulated_batches_have_the_gradient_of_all_pairs_together(name: str) -> None:
    parts = [batch_for(name, pairs=2, seed=1), batch_for(name, pairs=1, seed=2)]
    networks = [Network().double() for _ in range(3)]
    for part in parts:
        backward_joint(Plain(networks[0]), part, OBJECTIVES[name], 3)  # type: ignore[arg-type]
    for network, part in zip(networks[1:], parts, strict=True):
        backward_joint(Plain(network), part, OBJECTIVES[name], len(part.pairs))  # type: ignore[arg-type]
    first, second, third = (network.adapter.grad for network in networks)
    assert first is not None
    assert second is not None
    assert third is not None
    torch.testing.assert_close(first, (2 * second + third) / 3, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_the_one_of_finite_differences(name: str) -> None:
    given, objective, step = batch_for(name), OBJECTIVES[name], 1e-3
    analytic, _ = gradient(backward_joint, objective, given)

    def value(change: float) -> float:
        network = Network().double()
        with torch.no_grad():
            network.adapter[2] += change
        return backward_joint(Plain(network), given, objective, 3)[0].mean().item()  # type: ignore[arg-type]

    assert (value(step) - value(-step)) / (2 * step) == pytest.approx(analytic[2].item(), rel=4e-2)


def test_a_step_clips_scales_each_groups_rate_and_names_its_pairs() -> None:
    network = Network()
    optimizer = new_optimizer("adamw", [{"params": [network.adapter], "scale": 0.5}], weight_decay=0.0)
    before = network.adapter.detach().clone()
    record = training_step(
        Plain(network),  # type: ignore[arg-type]
        optimizer,
        [batch_for("mapo", 2, seed=1), batch_for("mapo", 1, seed=2)],
        OBJECTIVES["mapo"],
        step=7,
        learning_rate=0.1,
        max_grad_norm=1e-9,
    )
    assert record.pairs == ("1-0", "1-1", "2-0")
    assert record.losses.shape == (3, 3)
    assert record.grad_norm > 1e-9
    # AdamW's first update is the rate times the gradient's sign, but for an epsilon of 1e-8 that clipping brings near.
    assert (network.adapter - before).abs().max() < 0.1 * 0.5
    assert network.adapter.grad is None


def test_methods_that_train_on_chosen_images_alone_have_no_rejected_loss() -> None:
    _, losses = gradient(backward_joint, OBJECTIVES["dco"], batch_for("dco"))
    assert losses.shape == (2, 3)


@pytest.mark.parametrize("backward", [backward_joint, backward_streamed])
def test_an_objective_sees_each_sides_own_losses_of_the_network_and_of_its_base(backward: Any) -> None:
    seen_losses: list[PairLosses] = []

    def record(losses: PairLosses) -> Tensor:
        seen_losses.append(losses)
        return losses.chosen + 0.1 * required(losses.rejected) + 0.01 * required(losses.prior)

    whole = Batch(**{**vars(batch(3, sides=2)), "prior": batch(3, sides=1, seed=1)})
    objective = Objective(record, uses_rejected=True, uses_reference=True)
    returned = backward(Plain(Network()), whole, objective, 3)
    plain = Plain(Network())

    def of(part: Batch) -> Tensor:
        return denoising_losses(plain, part)[0].detach()  # type: ignore[arg-type]

    [losses] = seen_losses
    chosen, rejected = whole.side(0), whole.side(1)
    assert whole.prior is not None
    given = (losses.chosen, losses.rejected, losses.prior)
    for found, part in zip(given, (chosen, rejected, whole.prior), strict=True):
        assert found is not None
        torch.testing.assert_close(found.detach(), of(part))
    values = of(chosen) + 0.1 * of(rejected) + 0.01 * of(whole.prior)
    torch.testing.assert_close(returned, torch.stack([values, of(chosen), of(rejected)]))
    assert not torch.allclose(of(chosen), of(rejected), rtol=1e-2)
    with plain.without_adapter():
        for found, part in ((losses.reference_chosen, chosen), (losses.reference_rejected, rejected)):
            assert found is not None
            torch.testing.assert_close(found, of(part))


def alone(of: Batch, index: int) -> Batch:
    """The pair at this index by itself."""
    count = len(of.pairs)
    rows = [index + side * count for side in range(of.sides)]
    one = slice(index, index + 1)
    prompt = {name: tensor[one] for name, tensor in of.prompt.items()}
    return Batch(of.pairs[one], of.latents[rows], of.noise[one], of.timesteps[one], prompt, of.size_ids[rows])


def test_a_pairs_losses_are_mean_squared_errors_under_its_own_noise_timestep_and_prompt() -> None:
    network, given = Network(), batch(3, sides=2)
    together = denoising_losses(Plain(network), given)  # type: ignore[arg-type]
    for index in range(3):
        share = given.timesteps[index] / 1000
        for side, losses in enumerate(together):
            noisy = (1 - share) * given.latents[side * 3 + index] + share * given.noise[index]
            word, timestep = given.prompt["word"][index], given.timesteps[index]
            predicted = network(noisy[None], timestep[None], word[None])[0]
            expected = ((predicted - given.noise[index]) ** 2).sum() / 36
            torch.testing.assert_close(losses[index], expected)


class Velocity(Plain):
    """Is to predict what depends on the image too."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - (timesteps / 1000).view(-1, 1, 1, 1) * latents


def test_the_target_is_of_the_image_its_noise_and_its_timestep() -> None:
    network, given = Network(), batch(2, sides=2)
    for side, losses in enumerate(denoising_losses(Velocity(network), given)):  # type: ignore[arg-type]
        latents = given.latents[2 * side : 2 * side + 2]
        noisy = Plain(network).add_noise(latents, given.noise, given.timesteps)
        predicted = network(noisy, given.timesteps, given.prompt["word"])
        target = given.noise - (given.timesteps / 1000).view(-1, 1, 1, 1) * latents
        torch.testing.assert_close(losses, (predicted - target).square().mean(dim=(1, 2, 3)))


def test_a_pair_has_the_same_losses_in_any_company() -> None:
    network, given = Network(), batch(3, sides=2)
    together = torch.stack(denoising_losses(Plain(network), given))  # type: ignore[arg-type]
    each = [torch.stack(denoising_losses(Plain(network), alone(given, index))) for index in range(3)]  # type: ignore[arg-type]
    torch.testing.assert_close(together, torch.cat(each, dim=1))


def test_the_reference_is_the_network_without_its_adapter() -> None:
    network, given = Network(), batch(3, sides=2)
    reference = reference_losses(Plain(network), given, OBJECTIVES["dpo"])  # type: ignore[arg-type]
    trained = denoising_losses(Plain(network), given)  # type: ignore[arg-type]
    with torch.no_grad():
        network.adapter.zero_()
    for found, expected, adapted in zip(reference, denoising_losses(Plain(network), given), trained, strict=True):  # type: ignore[arg-type]
        assert found is not None
        assert not found.requires_grad
        torch.testing.assert_close(found, expected)
        assert not torch.isclose(found, adapted, rtol=1e-4).any()


def step_of(
    denoiser: Plain, batches: list[Batch], objective: Objective, max_grad_norm: float = 1e6, *, streamed: bool = False
) -> tuple[Tensor, float]:
    """One step of plain descent at rate 1: the gradient that the optimizer was given, and the norm on record."""
    before = denoiser.network.adapter.detach().clone()
    record = training_step(
        denoiser,  # type: ignore[arg-type]
        torch.optim.SGD([{"params": [denoiser.network.adapter], "scale": 1.0}], lr=0.0),
        batches,
        objective,
        step=1,
        learning_rate=1.0,
        max_grad_norm=max_grad_norm,
        streamed=streamed,
    )
    return before - denoiser.network.adapter.detach(), record.grad_norm.item()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", ["mapo", "dpo", "dco"])
def test_a_step_weighs_every_pair_alike_however_they_fall_into_batches(name: str, streamed: bool) -> None:
    given, objective = batch_for(name), OBJECTIVES[name]
    apart = [alone(given, 0), alone(given, 1), alone(given, 2)]
    uneven = [batch_for(name, pairs=2, seed=1), batch_for(name, pairs=1, seed=2)]
    whole, _ = step_of(Plain(Network()), [given], objective, streamed=streamed)
    accumulated, _ = step_of(Plain(Network()), apart, objective, streamed=streamed)
    torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)
    first, second = (step_of(Plain(Network()), [part], objective, streamed=streamed)[0] for part in uneven)
    both, _ = step_of(Plain(Network()), uneven, objective, streamed=streamed)
    torch.testing.assert_close(both, (2 * first + second) / 3, rtol=1e-4, atol=1e-6)


def test_each_group_moves_at_its_part_of_the_steps_rate() -> None:
    given, objective = batch_for("mapo"), OBJECTIVES["mapo"]
    gradient, _ = step_of(Plain(Network()), [given], objective)
    network = Network()
    before = network.adapter.detach().clone()
    optimizer = torch.optim.SGD([{"params": [network.adapter], "scale": 0.25}], lr=9.0)
    training_step(Plain(network), optimizer, [given], objective, step=1, learning_rate=0.5, max_grad_norm=1e6)  # type: ignore[arg-type]
    torch.testing.assert_close(before - network.adapter.detach(), 0.125 * gradient, rtol=1e-4, atol=1e-7)


def test_a_long_gradient_is_scaled_down_whole_and_a_short_one_left_alone() -> None:
    given, objective = batch_for("mapo"), OBJECTIVES["mapo"]
    free, norm = step_of(Plain(Network()), [given], objective)
    assert norm == pytest.approx(free.norm().item(), rel=1e-5)
    clipped, on_record = step_of(Plain(Network()), [given], objective, max_grad_norm=norm / 4)
    torch.testing.assert_close(clipped, free / 4, rtol=1e-4, atol=1e-7)
    assert on_record == pytest.approx(norm)
    short, _ = step_of(Plain(Network()), [given], objective, max_grad_norm=norm * 1.01)
    torch.testing.assert_close(short, free)


class Half(Network):
    """Computes in fp16 with an fp32 adapter, as on a base in half precision."""

    def forward(self, noisy: Tensor, timesteps: Tensor, prompt: Tensor) -> Tensor:
        scale = (0.3 + (self.adapter if self.enabled else torch.zeros(4))).half()
        shift = (prompt.view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) / 1e4).half()
        return torch.tanh(noisy.half() * scale.view(1, 4, 1, 1) + shift).float()


FAINT = Objective(
    lambda pair: 1e-5 * (pair.chosen + required(pair.rejected)), uses_rejected=True, uses_reference=False
)  # its activations' gradients are below what fp16 can hold


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("objective", [OBJECTIVES["mapo"], OBJECTIVES["dpo"], FAINT])
def test_an_fp16_base_gives_the_gradient_and_the_norm_of_an_fp32_one(objective: Objective, streamed: bool) -> None:
    given = [batch_for("mapo", 2, seed=1), batch_for("mapo", 1, seed=2)]
    expected, norm = step_of(Plain(Network()), given, objective, streamed=streamed)
    found, half_norm = step_of(Plain(Half(), torch.float16), given, objective, streamed=streamed)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2 * norm)
    assert half_norm == pytest.approx(norm, rel=2e-2)


def test_an_fp16_base_is_clipped_at_the_length_that_was_requested() -> None:
    given, objective = batch_for("mapo"), OBJECTIVES["mapo"]
    _, norm = step_of(Plain(Network()), [given], objective)
    clipped, _ = step_of(Plain(Half(), torch.float16), [given], objective, max_grad_norm=norm / 4)
    assert clipped.norm().item() == pytest.approx(norm / 4, rel=1e-3)
    short, _ = step_of(Plain(Half(), torch.float16), [given], objective, max_grad_norm=norm * 1.1)
    assert short.norm().item() == pytest.approx(norm, rel=2e-2)


def test_one_update_of_adamw_on_an_fp16_base_is_that_on_an_fp32_one() -> None:
    """Where its epsilon counts and clipping does, a gradient that was not scaled back would show."""
    updates = []
    for denoiser in (Plain(Network()), Plain(Half(), torch.float16)):
        adapter = denoiser.network.adapter
        before = adapter.detach().clone()
        training_step(
            denoiser,  # type: ignore[arg-type]
            new_optimizer("adamw", [{"params": [adapter], "scale": 1.0}], weight_decay=0.01),
            [batch(3, sides=2)],
            Objective(lambda pair: 1e-7 * pair.chosen, uses_rejected=True, uses_reference=False),
            step=1,
            learning_rate=0.1,
            max_grad_norm=1.0,
        )
        updates.append(adapter.detach() - before)
    torch.testing.assert_close(updates[1], updates[0], rtol=5e-2, atol=0)


STEEP = Objective(
    lambda pair: 1e4 * (pair.chosen + required(pair.rejected)), uses_rejected=True, uses_reference=False
)  # times 4096, its activations' gradients are above what fp16 can hold


def half_step(denoiser: Plain, scale: GradientScale, objective: Objective = STEEP) -> float:
    optimizer = torch.optim.SGD([{"params": [denoiser.network.adapter], "scale": 1.0}], lr=0.1)
    given, rate = [batch_for("mapo", 2, seed=1)], 1e-6
    options = {"step": 1, "learning_rate": rate, "max_grad_norm": 1e9, "gradient_scale": scale}
    return training_step(denoiser, optimizer, given, objective, **options).grad_norm.item()  # type: ignore[arg-type]


def test_a_gradient_that_overflows_in_fp16_changes_nothing_and_fits_at_a_smaller_scale() -> None:
    half, scale = Plain(Half(), torch.float16), GradientScale()
    before, shrunk = half.network.adapter.detach().clone(), 0
    while True:
        try:
            norm = half_step(half, scale)
            break
        except GradientOverflow:
            assert torch.equal(half.network.adapter, before)
            assert half.network.adapter.grad is None
            scale.shrink()
            shrunk += 1
    assert shrunk > 0
    assert scale.value == 4096 / 2**shrunk
    assert norm == pytest.approx(half_step(Plain(Network()), GradientScale()), rel=2e-2)
    assert not torch.equal(half.network.adapter, before)


def test_a_scale_doubles_after_many_good_steps_and_an_overflow_begins_the_count_again() -> None:
    scale, half = GradientScale(8.0), Plain(Half(), torch.float16)
    for _ in range(GROWS_AFTER - 1):
        scale.count_good_step()
    assert scale.value == 8
    half_step(half, scale, OBJECTIVES["mapo"])
    assert scale == GradientScale(16.0, good_steps=0)
    scale.count_good_step()
    scale.shrink()
    assert scale == GradientScale(8.0, good_steps=0)


def test_a_gradient_that_no_scale_makes_finite_is_recorded_as_it_is() -> None:
    hopeless = Objective(lambda pair: 1e30 * pair.chosen, uses_rejected=False, uses_reference=False)
    with pytest.raises(GradientOverflow):
        half_step(Plain(Half(), torch.float16), GradientScale(), hopeless)
    norm = half_step(Plain(Half(), torch.float16), GradientScale(SMALLEST), hopeless)
    assert not torch.isfinite(torch.tensor(norm))


def test_a_loss_that_is_not_finite_is_recorded_at_once_and_other_precisions_have_no_scale() -> None:
    broken = Objective(lambda pair: torch.inf * pair.chosen, uses_rejected=False, uses_reference=False)
    half_step(Plain(Half(), torch.float16), GradientScale(), broken)
    scale = GradientScale()
    half_step(Plain(Network()), scale)
    assert scale == GradientScale()
