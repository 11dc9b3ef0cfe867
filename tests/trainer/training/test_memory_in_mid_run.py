"""Memory that runs out after the memory plan was chosen: the run goes on, and trains the same."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.tiny_sdxl import PROMPTS, save_run, write_spec
from tests.trainer.training.test_step import OBJECTIVES, Network, Plain, batch_for
from trainer.cache.cache import Cache
from trainer.export.results import sample_images
from trainer.families.sdxl import SdxlDenoiser
from trainer.objectives.objective import Objective
from trainer.recipe import measure_base, objective_of, requirements_of
from trainer.run_directory.output import SampleImages
from trainer.run_directory.run import read_run
from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from trainer.runtime.errors import OutOfMemory
from trainer.runtime.event_stream import PhaseReporter
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, MemoryPlanned, Warned
from trainer.training.checkpoint import BestAdapter, ResolvedPlan, newest_checkpoint
from trainer.training.loop import Training, fit, new_batches
from trainer.training.memory_plan import MemoryPlan
from trainer.training.memory_probe import try_plan
from trainer.training.setup import TrainingContext, prepare
from trainer.training.step import GradientScale, training_step
from trainer.training.trainable import missing_state_bytes, new_optimizer

CPU = torch.device("cpu")
JOINT_8 = MemoryPlan(8, gradient_checkpointing=False, streamed=False)
SAMPLED = 4  # images: two prompts, with and without


@dataclass
class Device:
    """``images`` says how many a pass with gradient may have, by its number; four times as many with checkpointing.

    ``reserved`` are the bytes that something else took during each of these passes, where ``is_watched``.
    """

    images: Callable[[int], int] = lambda _: 100
    samples: bool = True
    is_watched: bool = False
    passes: int = 0
    reserved: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Limited(SdxlDenoiser):
    device: Device = field(default_factory=Device)

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.device.passes += 1
            limit = self.device.images(self.device.passes) * (4 if self.network.is_gradient_checkpointing else 1)
            if len(noisy) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            tensors = [one for one in gc.get_objects() if type(one) is Tensor] if self.device.is_watched else []
            self.device.reserved.append(sum(one.numel() for one in tensors if one.dtype == torch.uint8))
        elif len(noisy) == SAMPLED and not self.device.samples:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().predict(noisy, timesteps, prompt, size_ids)


@dataclass
class Trained:
    context: TrainingContext
    events: list[Event]
    best: BestAdapter
    plan: ResolvedPlan

    def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.context.metrics_log.rows() if row["kind"] == "train"]

    def warnings(self, code: str) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned) and event.code == code]


def prepared(
    folder: Path,
    base: Path,
    device: Device,
    events: list[Event],
    prompts: Sequence[str],
    batch_size: int | str,
    **compute: str,
) -> tuple[TrainingContext, Any, Objective]:
    directory = save_run(folder, base)
    write_spec(
        directory,
        base,
        {"max_steps": 4, "batch_size": batch_size, "beta": 64.0, "learning_rate": 1e-3},
        sampling={"steps": 1, "prompts": list(prompts), "held_out": 0},
        checkpoints={"every_steps": 2},
        compute=compute,
    )
    run = read_run(directory)
    context, evaluator, *_ = prepare(
        run,
        Cache(folder / "cache"),
        requirements_of(run.spec.method),
        PhaseReporter(events.append),
        StopRequest(),
        SINGLE_PROCESS,
    )
    loaded: Any = context.trainable.denoiser
    limited = Limited(**{name: getattr(loaded, name) for name in loaded.__dataclass_fields__}, device=device)
    context = replace(context, trainable=replace(context.trainable, denoiser=limited))
    return context, replace(evaluator, denoiser=limited), objective_of(run.spec.method, 64.0, 1000)


def trained(
    folder: Path, base: Path, device: Device, *, prompts: Sequence[str] = (), batch_size: int | str = "auto"
) -> Trained:
    """Four steps of eight pairs in two shapes, at first with up to eight pairs of a shape in a pass."""
    events: list[Event] = []
    context, evaluator, objective = prepared(folder, base, device, events, prompts, batch_size)
    measured = measure_base(evaluator, context.dataset.held_out)
    best, plan = fit(context, evaluator, objective, measured, ResolvedPlan(64.0, "cpu", JOINT_8), None)
    return Trained(context, events, best, plan)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Trained:
    return trained(tmp_path_factory.mktemp("straight") / "run", tiny_base, Device())


@pytest.mark.integration
@pytest.mark.parametrize("fails_from", [2, 3])
@pytest.mark.parametrize(
    ("images", "batch_size", "plan"),
    [(5, "auto", (2, False)), (1, "auto", (2, True)), (4, 8, (8, True))],
    ids=["smaller", "checkpointing", "checkpointing of a fixed batch"],
)
def test_a_step_that_runs_out_of_memory_is_repeated_by_the_next_plan_with_the_same_result(
    tmp_path: Path,
    tiny_base: Path,
    straight: Trained,
    fails_from: int,
    images: int,
    batch_size: int | str,
    plan: tuple[int, bool],
) -> None:
    """Also where a part of the step's gradient was computed already."""
    device = Device(lambda number: 100 if number < fails_from else images)
    short = trained(tmp_path / "short", tiny_base, device, batch_size=batch_size)
    assert short.plan.memory == MemoryPlan(plan[0], gradient_checkpointing=plan[1], streamed=False)
    assert [row["step"] for row in short.rows()] == [1, 2, 3, 4]
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in short.rows()] == pytest.approx([row[name] for row in straight.rows()], rel=1e-3)
    for name, tensor in straight.best.adapter.items():
        torch.testing.assert_close(short.best.adapter[name], tensor, rtol=1e-2, atol=1e-5)
    assert "with batch_size 8. The run repeats the step with" in short.warnings("memory_plan_changed")[0]
    (*_, planned) = (event for event in short.events if isinstance(event, MemoryPlanned))
    assert (planned.batch_size, planned.gradient_checkpointing) == plan
    state = json.loads((tmp_path / "short/checkpoints/step-00000004/state.json").read_text())
    assert state["settled"]["memory"]["batch_size"] == plan[0]


@pytest.mark.integration
def test_a_run_with_no_plan_left_ends_with_out_of_memory(tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(OutOfMemory, match="batch_size 1 "):
        trained(tmp_path / "run", tiny_base, Device(lambda number: 100 if number < 3 else 0))


@pytest.mark.integration
def test_samples_that_do_not_fit_cost_themselves_and_no_training(tmp_path: Path, tiny_base: Path) -> None:
    without = trained(tmp_path / "run", tiny_base, Device(samples=False), prompts=PROMPTS[:2])
    assert [row["step"] for row in without.rows()] == [1, 2, 3, 4]
    steps = [message.partition(" at ")[2].partition(".")[0] for message in without.warnings("no_samples")]
    assert steps == ["step 0", "step 2", "step 4"]
    assert sample_images(without.context) == SampleImages(None, "the device had no memory left to draw them")


@pytest.mark.integration
def test_the_probe_reserves_the_optimizers_state_until_the_optimizer_has_it(tmp_path: Path, tiny_base: Path) -> None:
    device = Device(is_watched=True)
    context, _, objective = prepared(tmp_path / "run", tiny_base, device, [], (), "auto")
    plan, batches = MemoryPlan(1, gradient_checkpointing=False, streamed=False), new_batches(context, objective)
    try_plan(context, objective, batches, plan)
    numbers = sum(parameter.numel() for parameter in context.trainable.parameters.values())
    assert device.reserved == [2 * 4 * numbers]
    for parameter in context.trainable.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    context.trainable.optimizer.step()
    try_plan(context, objective, batches, plan)
    assert device.reserved[1:] == [0]
    assert missing_state_bytes(context.trainable.optimizer) == 0


@pytest.mark.integration
def test_an_fp16_run_whose_gradients_overflow_repeats_the_step_and_keeps_the_scale_in_its_checkpoint(
    tmp_path: Path, tiny_base: Path
) -> None:
    context, evaluator, objective = prepared(
        tmp_path / "run", tiny_base, Device(), [], (), "auto", base_precision="fp16"
    )
    base, plan = measure_base(evaluator, context.dataset.held_out), ResolvedPlan(64.0, "cpu", JOINT_8)
    batches, too_large = new_batches(context, objective), GradientScale(2.0**40)
    training = Training(context, evaluator, objective, base, plan, 2, batches, gradient_scale=too_large)
    training.run()
    rows = [row for row in context.metrics_log.rows() if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert training.gradient_scale.value < 2.0**40
    saved = newest_checkpoint(tmp_path / "run/checkpoints", context.run.digest, lambda *_: None)
    assert saved is not None
    assert saved.gradient_scale == training.gradient_scale
    resumed = Training(context, evaluator, objective, base, plan, 2, batches, saved)
    assert resumed.gradient_scale == saved.gradient_scale


class Together(ProcessGroup):
    """Two processes as threads of one, which add up their tensors."""

    barrier = threading.Barrier(2)
    tensors: tuple[list[Tensor], list[Tensor]] = ([], [])

    def all_reduce(self, tensor: Tensor) -> None:
        self.tensors[self.rank].append(tensor.clone())
        self.barrier.wait(timeout=60)
        tensor.copy_(self.tensors[0][-1] + self.tensors[1][-1])
        self.barrier.wait(timeout=60)


class Short(Plain):
    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], _sizes: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().predict(noisy, timesteps, prompt, _sizes)


@pytest.mark.unit
def test_where_one_process_runs_out_of_memory_all_take_the_step_back_together() -> None:
    outcomes: dict[int, tuple[OutOfMemory, bool]] = {}

    def process(rank: int, denoiser: Plain) -> None:
        before = denoiser.network.adapter.detach().clone()
        optimizer = new_optimizer("adamw", [{"params": [denoiser.network.adapter], "scale": 1.0}], weight_decay=0.0)
        own = batch_for("mapo", pairs=2, seed=rank)
        names = [f"{seed}-{index}" for seed in range(2) for index in range(2)]
        with pytest.raises(OutOfMemory) as raised:
            training_step(
                denoiser,  # type: ignore[arg-type]
                optimizer,
                [own],
                OBJECTIVES["mapo"],
                step=1,
                learning_rate=0.1,
                max_grad_norm=1.0,
                process_group=Together(rank, 2),
                pairs=names,
            )
        unchanged = torch.equal(denoiser.network.adapter, before) and denoiser.network.adapter.grad is None
        outcomes[rank] = (raised.value, unchanged)

    threads = [
        threading.Thread(target=process, args=arguments) for arguments in ((0, Plain(Network())), (1, Short(Network())))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert {rank: (error.code, unchanged) for rank, (error, unchanged) in outcomes.items()} == dict.fromkeys(
        range(2), ("out_of_memory", True)
    )
