"""What a run does with its specification, by its own records: the program is run on the tiny base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.program import Outcome, run_program
from tests.trainer.tiny_sdxl import save_run, write_spec
from trainer.spec.events import BetaChosen, MemoryPlanned, Metrics, Phase, StoppedEarly
from trainer.spec.family_facts import FamilyName
from trainer.training.schedule import learning_rate

pytestmark = pytest.mark.integration

Row = dict[str, Any]
NO_PICTURES = {"held_out": 0}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def saved(directory: Path, base: Path, hyperparameters: Row, method: str = "sft", **options: Any) -> Path:
    save_run(directory, base)
    options = {"sampling": NO_PICTURES, "mismatch": {"samples": 0}} | options
    write_spec(directory, base, hyperparameters, method=method, **options)
    return directory


def finished(directory: Path, cache: Path) -> Outcome:
    outcome = run_program(directory, cache)
    assert outcome.returncode == 0, outcome.stderr
    return outcome


def rows(directory: Path, kind: str = "train") -> list[Row]:
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["kind"] == kind]


def checkpoint(directory: Path, step: int, group: str = "adapter") -> dict[str, Tensor]:
    tensors = load_file(directory / f"checkpoints/step-{step:08d}/tensors.safetensors")
    return {name.removeprefix(f"{group}/"): one for name, one in tensors.items() if name.startswith(f"{group}/")}


def with_prompts(directory: Path, prompt: str) -> None:
    manifest = directory / "data/manifest.jsonl"
    pairs = [json.loads(line) | {"prompt": prompt} for line in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(map(json.dumps, pairs)))


def losses(directory: Path, base: Path, cache: Path, *, dropout: float, prompt: str | None = None) -> list[float]:
    saved(directory, base, {"max_steps": 3, "batch_size": 4, "prompt_dropout": dropout})
    if prompt is not None:
        with_prompts(directory, prompt)
    finished(directory, cache)
    return [row["loss"] for row in rows(directory)]


def test_prompts_that_are_all_dropped_train_as_empty_ones_and_such_as_are_not_as_themselves(
    tiny_base: Path, tmp_path: Path, cache: Path
) -> None:
    nearly_all, usual = 1 - 1e-9, 0.1
    dropped = losses(tmp_path / "dropped", tiny_base, cache, dropout=nearly_all)
    empty = losses(tmp_path / "empty", tiny_base, cache, dropout=0.0, prompt="")
    themselves = losses(tmp_path / "themselves", tiny_base, cache, dropout=0.0)
    some = losses(tmp_path / "some", tiny_base, cache, dropout=usual)
    assert dropped == empty
    assert dropped != themselves
    assert sum(abs(one - other) for one, other in zip(some, themselves, strict=True)) < sum(
        abs(one - other) for one, other in zip(some, empty, strict=True)
    )


@pytest.fixture(scope="module")
def worsening(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Outcome]:
    """A learning rate so high that the validation objective is lowest early and rises afterwards."""
    directory = tmp_path_factory.mktemp("worsening") / "run"
    options = {"max_steps": 12, "batch_size": 4, "learning_rate": 0.03, "lr_scheduler": "constant", "warmup_steps": 3}
    validation = {"draws": 2, "patience": 2}
    saved(directory, tiny_base, options, validation=validation, checkpoints={"every_steps": 1})
    return directory, finished(directory, cache)


def measured(outcome: Outcome) -> dict[int, float]:
    """The validation objective of each checkpoint."""
    return {event.step: event.objective for event in outcome.events if isinstance(event, Metrics) and not event.final}


def best_of(outcome: Outcome) -> int:
    objectives = {step: objective for step, objective in measured(outcome).items() if step > 0}
    return min(objectives, key=lambda step: objectives[step])


def scaled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As exported: B has the scale, 8 / 4."""
    return {name: tensor * 2 if "lora_B" in name else tensor for name, tensor in weights.items()}


def test_the_exported_adapter_is_that_of_the_lowest_held_out_objective(worsening: tuple[Path, Outcome]) -> None:
    directory, outcome = worsening
    best, last = best_of(outcome), max(measured(outcome))
    assert 0 < best < last
    exported = load_file(directory / "output/pytorch_lora_weights.safetensors")
    best_weights, later = scaled(checkpoint(directory, best)), scaled(checkpoint(directory, last))
    named = {f"unet.{name.replace('.default', '')}": name for name in best_weights}
    assert exported.keys() == named.keys()
    assert all(torch.equal(exported[key], best_weights[name]) for key, name in named.items())
    assert any(not torch.equal(exported[key], later[name]) for key, name in named.items())
    (final,) = (event for event in outcome.events if isinstance(event, Metrics) and event.final)
    assert final.step == best
    assert final.objective == pytest.approx(measured(outcome)[best], rel=1e-4)


def test_every_checkpoint_has_the_best_adapter_next_to_its_own(worsening: tuple[Path, Outcome]) -> None:
    directory, outcome = worsening
    best, last = best_of(outcome), max(measured(outcome))
    best_weights = checkpoint(directory, best)
    stored_best = checkpoint(directory, last, "best")
    assert stored_best.keys() == best_weights.keys()
    assert all(torch.equal(stored_best[name], tensor) for name, tensor in best_weights.items())


def test_a_run_stops_after_as_many_evaluations_without_a_better_one_as_patience_says(
    worsening: tuple[Path, Outcome],
) -> None:
    _, outcome = worsening
    (stopped,) = (event for event in outcome.events if isinstance(event, StoppedEarly))
    best = best_of(outcome)
    assert (stopped.step, stopped.best_step, stopped.patience) == (best + 2, best, 2)
    assert max(measured(outcome)) == best + 2


def test_each_step_has_the_rate_of_its_number(worsening: tuple[Path, Outcome]) -> None:
    directory, _ = worsening
    found = {row["step"]: row["learning_rate"] for row in rows(directory)}
    expected = {step: learning_rate(step, peak=0.03, warmup_steps=3, max_steps=12, kind="constant") for step in found}
    assert found == pytest.approx(expected)
    assert list(found)[:3] == [1, 2, 3]
    assert [found[step] for step in (1, 2, 3)] == pytest.approx([0.01, 0.02, 0.03])


def test_weight_decay_and_the_gradients_length_are_those_that_were_requested(
    tiny_base: Path, tmp_path: Path, cache: Path
) -> None:
    """Of gradients cut to almost nothing AdamW makes no update, which leaves the decay alone to be seen."""
    options = {
        "max_steps": 4,
        "batch_size": 4,
        "learning_rate": 0.1,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "weight_decay": 1.0,
        "max_grad_norm": 1e-13,
    }
    directory = saved(tmp_path / "run", tiny_base, options, checkpoints={"every_steps": 1})
    finished(directory, cache)
    before, after = checkpoint(directory, 3), checkpoint(directory, 4)
    for name, tensor in after.items():
        if "lora_A" in name:
            torch.testing.assert_close(tensor, 0.9 * before[name], rtol=1e-3, atol=1e-6)
        else:
            assert tensor.abs().max() < 1e-4
    assert all(row["grad_norm"] > 1e-6 for row in rows(directory))  # as it was before it was cut


def beta(directory: Path, step: int) -> float | None:
    state: Mapping[str, Any] = json.loads((directory / f"checkpoints/step-{step:08d}/state.json").read_text())
    value: float | None = state["settled"]["beta"]
    return value


@pytest.mark.parametrize(
    ("family", "method", "options", "expected"),
    [
        ("sd1", "dpo", {}, 2000.0),
        ("sdxl", "dpo", {}, 5000.0),
        ("sdxl", "dpo", {"beta": 7.0}, 7.0),
        ("sdxl", "dco", {}, 1000.0),
        ("sdxl", "mapo", {"preset": "personalization"}, 1024.0),
        ("sdxl", "mapo", {"form": "reference-code"}, 0.1),
        ("sdxl", "mapo", {"beta": 7.0}, 7.0),
        ("sdxl", "mapo", {}, 8.0),  # where the mismatch was not to be measured
    ],
)
def test_beta_is_the_one_of_method_family_and_preset_or_the_one_given(
    tmp_path: Path, cache: Path, tiny_base: Path, family: FamilyName, method: str, options: Row, expected: float
) -> None:
    base = tiny_base if family == "sdxl" else SAVE_BASE[family](tmp_path / "base")
    directory = saved(tmp_path / "run", base, {"max_steps": 1, "batch_size": 2} | options, method, family=family)
    outcome = finished(directory, cache)
    assert beta(directory, 1) == expected
    reported = [event.beta for event in outcome.events if isinstance(event, BetaChosen)]
    is_chosen = "beta" not in options and "form" not in options
    assert reported == ([expected] if is_chosen else [])


def test_on_a_cpu_nothing_is_traded_for_memory_unless_the_spec_says_so(
    worsening: tuple[Path, Outcome], tiny_base: Path, tmp_path: Path, cache: Path
) -> None:
    _, outcome = worsening
    (plan,) = (event for event in outcome.events if isinstance(event, MemoryPlanned))
    assert (plan.batch_size, plan.streamed, plan.gradient_checkpointing) == (4, False, False)
    options = {"max_steps": 1, "batch_size": "auto", "gradient_accumulation": 1}
    directory = saved(tmp_path / "run", tiny_base, options)
    (plan,) = (event for event in finished(directory, cache).events if isinstance(event, MemoryPlanned))
    assert (plan.effective_batch_size, plan.batch_size) == (8, 8)
    assert (plan.streamed, plan.gradient_checkpointing) == (False, False)


def test_as_many_held_out_pairs_are_measured_as_were_requested_and_all_at_both_ends(
    tiny_base: Path, tmp_path: Path, cache: Path
) -> None:
    directory = saved(
        tmp_path / "run",
        tiny_base,
        {"max_steps": 4, "batch_size": 2},
        validation={"pairs_at_checkpoints": 1},
        checkpoints={"every_steps": 2},
    )
    outcome = finished(directory, cache)
    measured = [(event.step, event.pairs) for event in outcome.events if isinstance(event, Metrics)]
    assert measured == [(0, 2), (2, 1), (4, 1), (measured[-1][0], 2)]
    phases = [event.phase for event in outcome.events if isinstance(event, Phase)]
    last_training = len(phases) - 1 - phases[::-1].index("training")
    assert phases[last_training + 1 :] == ["validating", "validating", "exporting"]  # no training after the last step
