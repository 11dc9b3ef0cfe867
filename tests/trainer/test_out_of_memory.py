"""Running out of memory: reported with what to change, and avoided where the batch size is left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.tiny_sdxl import save_run
from trainer.cache.cache import Cache
from trainer.data.pairs import DataRequirements
from trainer.export.results import sample_images
from trainer.families.sdxl import SdxlDenoiser
from trainer.recipe import objective_of
from trainer.run_directory.output import SampleImages
from trainer.run_directory.run import read_run
from trainer.runtime.device import explain_out_of_memory
from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from trainer.runtime.errors import OutOfMemory
from trainer.runtime.event_stream import PhaseReporter
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, Warned
from trainer.spec.methods import MapoMethod
from trainer.spec.run import Compute, Sampling
from trainer.training.checkpoint import ResolvedPlan
from trainer.training.loop import new_batches
from trainer.training.memory_plan import MemoryPlan, candidate_plans, first_that_fits
from trainer.training.memory_probe import resolve_plan, try_plan
from trainer.training.setup import TrainingContext, prepare

CPU = torch.device("cpu")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "whose", "code"),
    [
        (torch.OutOfMemoryError(), "GPU memory", "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."), "GPU memory", "out_of_memory"),
        (MemoryError(), "the machine's main memory", "out_of_host_memory"),
    ],
)
def test_which_memory_ran_out_is_reported_with_the_batch_and_the_cure(error: Exception, whose: str, code: str) -> None:
    reported = rf"Out of {whose} with batch_size 6 \(peak \d+ MiB\).*gradient_accumulation"
    with pytest.raises(OutOfMemory, match=reported) as caught, explain_out_of_memory(CPU, 6):
        raise error
    assert caught.value.code == code


@pytest.mark.unit
def test_main_memory_that_is_refused_is_reported_too() -> None:
    with pytest.raises(OutOfMemory, match="main memory"), explain_out_of_memory(CPU, 1):
        torch.empty(2**60)


@pytest.mark.unit
def test_an_error_that_a_library_makes_of_it_is_known_too() -> None:
    with pytest.raises(OutOfMemory, match="main memory"), explain_out_of_memory(CPU, 1):
        raise RuntimeError("Unable to load weights") from MemoryError()


@pytest.mark.unit
def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(CPU, 1):
        raise RuntimeError("shapes do not fit")


class Small(SdxlDenoiser):
    """On a device that holds the gradients of so many images, five times as many with checkpointing."""

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        room = HELD * (5 if self.network.is_gradient_checkpointing else 1)
        if torch.is_grad_enabled() and len(noisy) > room:
            raise torch.OutOfMemoryError
        return super().predict(noisy, timesteps, prompt, size_ids)


HELD = 5


@pytest.fixture(scope="module")
def context(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingContext:
    folder = tmp_path_factory.mktemp("memory")
    run = read_run(save_run(folder / "run", tiny_base, max_steps=4, preset="style"))
    made, *_ = prepare(
        run,
        Cache(folder / "cache"),
        DataRequirements(rejected=True),
        PhaseReporter(lambda _: None),
        StopRequest(),
        SINGLE_PROCESS,
    )
    denoiser = made.trainable.denoiser
    assert isinstance(denoiser, SdxlDenoiser)
    small = Small(**{name: getattr(denoiser, name) for name in denoiser.__dataclass_fields__})
    return replace(made, trainable=replace(made.trainable, denoiser=small))


class Full(SdxlDenoiser):
    """On a device that has no room to draw."""

    def predict(self, *_: object) -> Tensor:
        raise torch.OutOfMemoryError


@pytest.mark.integration
def test_a_device_without_memory_to_sample_costs_the_samples_and_says_so(context: TrainingContext) -> None:
    reported: list[Event] = []
    denoiser = context.trainable.denoiser
    full = Full(**{name: getattr(denoiser, name) for name in denoiser.__dataclass_fields__})  # type: ignore[attr-defined]
    cramped = replace(
        context, trainable=replace(context.trainable, denoiser=full), phases=PhaseReporter(reported.append)
    )
    assert sample_images(cramped) == SampleImages(None, "the device had no memory left to sample them")
    assert [event.code for event in reported if isinstance(event, Warned)] == ["no_samples"]


@pytest.mark.integration
def test_a_run_that_wants_no_samples_samples_none_and_says_why(context: TrainingContext) -> None:
    spec = context.run.spec.model_copy(update={"sampling": Sampling(held_out=0)})
    assert sample_images(replace(context, run=replace(context.run, spec=spec))) == SampleImages(
        None, "sampling.held_out is 0"
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("effective_batch_size", "compute", "plan"),
    [
        (2, {}, (2, False, False)),
        (12, {}, (2, False, False)),
        (12, {"pairs": "streamed"}, (3, False, True)),
        (12, {"gradient_checkpointing": True}, (12, True, False)),
    ],
)
def test_the_largest_batch_that_fits_is_found_by_trying(
    context: TrainingContext, effective_batch_size: int, compute: dict[str, object], plan: tuple[int, bool, bool]
) -> None:
    """Halves of 12: 12, 6, 3, 2. A pair is two images, streamed it is one at a time."""
    objective = objective_of(MapoMethod(type="mapo"), 64.0, num_train_timesteps=1000)
    attempt = partial(try_plan, context, objective, new_batches(context, objective))
    found = first_that_fits(candidate_plans("auto", effective_batch_size, Compute.model_validate(compute)), attempt)
    assert found == MemoryPlan(plan[0], gradient_checkpointing=plan[1], streamed=plan[2])
    assert all(parameter.grad is None for parameter in context.trainable.parameters.values())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("device", "is_planned_again"),
    [("cpu", False), ("cuda", True), ("NVIDIA A100, 85899345920 bytes", True), ("cpu + cpu", True)],
)
def test_a_run_that_goes_on_plans_its_memory_again_unless_the_devices_are_the_same(
    context: TrainingContext, device: str, is_planned_again: bool
) -> None:
    earlier = ResolvedPlan(64.0, device, MemoryPlan(3, gradient_checkpointing=True, streamed=True))
    objective = objective_of(MapoMethod(type="mapo"), 64.0, num_train_timesteps=1000)
    found = resolve_plan(context, objective, 64.0, earlier)
    assert (found.memory != earlier.memory) == is_planned_again
    assert (found.device, found.beta) == ("cpu", 64.0)


@pytest.mark.integration
def test_several_processes_plan_again_together_where_one_of_their_devices_changed(context: TrainingContext) -> None:
    class Two(ProcessGroup):
        """Of which the other one computes on another device."""

        def all_gather(self, value: Any) -> list[Any]:
            return [value, "NVIDIA L4, 24146608128 bytes" if isinstance(value, str) else value]

    together = replace(context, process_group=Two(0, 2))
    objective = objective_of(MapoMethod(type="mapo"), 64.0, num_train_timesteps=1000)
    earlier = ResolvedPlan(64.0, "cpu + cpu", MemoryPlan(3, gradient_checkpointing=True, streamed=True))
    found = resolve_plan(together, objective, 64.0, earlier)
    assert found.memory != earlier.memory
    assert resolve_plan(together, objective, 64.0, found) == found
