"""Every method learns the chosen images and not the rejected ones, as the program reports and as diffusers measures."""

from __future__ import annotations

import json
import math
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.flat_colours import TARGETS, DiffusersLosses, save_base, save_run
from tests.trainer.program import Outcome, run_program
from tests.trainer.warm import Server
from trainer.spec.events import Event, Metrics, Progress, parse_event
from trainer.spec.methods import MapoHyperparameters, Method

pytestmark = pytest.mark.integration

STEPS = 30
# Without warm-up, decay and dropout, so that a few dozen steps show far more than noise: a base's margin is 0.0001.
COMMON: dict[str, Any] = {
    "max_steps": STEPS,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "warmup_steps": 0,
    "lr_scheduler": "constant",
    "prompt_dropout": 0,
}
NOTHING: Mapping[str, Any] = {}
CLEAR = 0.002  # of a loss, which is about 1: the least change that counts, 20 times the margin of the base


@dataclass(frozen=True)
class Case:
    """``uses_rejected``: its objective looks at rejected images.

    ``at_base``: the objective of a network that is its own reference, whatever the pair.
    ``text_encoders_alone``: hyperparameters with which its push shows through the text encoders alone, None if it is
    too weak for that.
    """

    method: str
    hyperparameters: dict[str, Any]
    uses_rejected: bool
    at_base: float | None = None
    text_encoders_alone: dict[str, Any] | None = None


CASES = {
    "mapo paper": Case("mapo", {"form": "paper", "beta": 8}, uses_rejected=True),
    "mapo reference-code": Case("mapo", {"form": "reference-code"}, uses_rejected=True, text_encoders_alone={}),
    "dpo": Case("dpo", {"beta": 2000}, uses_rejected=True, at_base=math.log(2), text_encoders_alone={"beta": 200}),
    "sft": Case("sft", {}, uses_rejected=False),
    "dco": Case("dco", {"beta": 100}, uses_rejected=False, at_base=math.log(2)),
    # So little of the class images' loss that learning them in place of the chosen ones would show.
    "dreambooth": Case(
        "dreambooth",
        {"class_prompt": "a drawing of a thing", "class_images": 2, "prior_weight": 0.1},
        uses_rejected=False,
    ),
}


@dataclass(frozen=True)
class Learned:
    """A finished run: what it reported, and the losses of red (chosen) and blue (rejected) by diffusers."""

    directory: Path
    outcome: Outcome
    losses: tuple[float, float]

    @property
    def measured(self) -> list[Metrics]:
        return [event for event in self.outcome.events if isinstance(event, Metrics)]

    @property
    def progress(self) -> Progress:
        return [event for event in self.outcome.events if isinstance(event, Progress)][-1]

    @property
    def steps(self) -> list[dict[str, Any]]:
        rows = map(json.loads, (self.directory / "output/metrics.jsonl").read_text().splitlines())
        return [row for row in rows if row["kind"] == "train"]


Run = Callable[[Path, Path], Outcome]
Learn = Callable[..., Learned]


@pytest.fixture(scope="module")
def by_diffusers(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> DiffusersLosses:
    return DiffusersLosses(save_base(tmp_path_factory.mktemp("direction") / "base", tiny_base))


@pytest.fixture(scope="module")
def learn(by_diffusers: DiffusersLosses, tmp_path_factory: pytest.TempPathFactory) -> Learn:
    encodings = tmp_path_factory.mktemp("cache")

    def learned(
        name: str, run: Run = run_program, *, rejected: bool = True, own: Mapping[str, Any] = NOTHING, **options: Any
    ) -> Learned:
        directory = tmp_path_factory.mktemp("direction") / "run"
        options = {
            "adapter": {"rank": 4, "target_modules": TARGETS},
            "checkpoints": {"every_steps": STEPS},
            "sampling": {"held_out": 0, "steps": 2},
        } | options
        case = CASES[name]
        hyperparameters = {**COMMON, **case.hyperparameters, **own}
        save_run(directory, by_diffusers.base, case.method, hyperparameters, rejected=rejected, **options)
        outcome = run(directory, encodings)
        assert outcome.returncode == 0, outcome.stderr
        return Learned(directory, outcome, by_diffusers.of_adapter(directory / "output"))

    return learned


@pytest.fixture(scope="module")
def learn_once(learn: Learn) -> Learn:
    return cache(learn)


def require_direction(learned: Learned, by_diffusers: DiffusersLosses) -> None:
    """Both by the program's report and by diffusers: red is learned, and more than blue."""
    base, *_, final = learned.measured
    chosen = final.chosen_loss - base.chosen_loss
    rejected = final.rejected_loss - base.rejected_loss
    assert final.final
    assert chosen < -CLEAR
    assert chosen < rejected - CLEAR
    assert (final.base_chosen_loss, final.base_rejected_loss) == pytest.approx((base.chosen_loss, base.rejected_loss))
    assert final.chosen_loss_change == pytest.approx(chosen, abs=1e-6)
    assert final.margin - base.margin == pytest.approx(rejected - chosen, abs=1e-6)
    assert final.margin_change == pytest.approx(rejected - chosen, abs=1e-6)
    assert base.implicit_accuracy == final.base_implicit_accuracy < final.implicit_accuracy
    assert final.reference_corrected_accuracy == 1
    for at in final.bins:
        assert at.margin == pytest.approx(at.rejected_loss - at.chosen_loss, abs=1e-6)
    red, blue = (after - before for before, after in zip(by_diffusers.of_base, learned.losses, strict=True))
    assert red < -CLEAR
    assert red < blue - CLEAR


def require_promise(learned: Learned, case: Case) -> None:
    """What the objective says beyond that."""
    base, *_, final = learned.measured
    assert final.objective < base.objective
    if case.at_base is not None:
        assert base.objective == pytest.approx(case.at_base, abs=1e-6)
    progress = learned.progress
    if case.uses_rejected:
        assert progress.rejected_loss is not None
        assert progress.margin == pytest.approx(progress.rejected_loss - progress.chosen_loss, abs=1e-6)
        first, *_, last = learned.steps
        assert last["rejected_loss"] - last["chosen_loss"] > first["rejected_loss"] - first["chosen_loss"] + CLEAR
    else:
        assert (progress.rejected_loss, progress.margin) == (None, None)
        assert final.rejected_loss < base.rejected_loss  # learned along with the chosen images, and not pushed away


def test_every_method_and_every_form_of_one_has_its_direction_tested_here() -> None:
    union, *_ = get_args(Method)
    methods = {name for method in get_args(union) for name in get_args(method.model_fields["type"].annotation)}
    assert {case.method for case in CASES.values()} == methods
    forms = set(get_args(MapoHyperparameters.model_fields["form"].annotation))
    assert {case.hyperparameters.get("form") for case in CASES.values() if case.method == "mapo"} == forms


@pytest.mark.parametrize("name", CASES)
def test_a_method_learns_the_chosen_images(name: str, learn_once: Learn, by_diffusers: DiffusersLosses) -> None:
    learned = learn_once(name)
    require_direction(learned, by_diffusers)
    require_promise(learned, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.text_encoders_alone is not None])
def test_text_encoders_alone_learn_the_chosen_images(name: str, learn: Learn, by_diffusers: DiffusersLosses) -> None:
    """The denoiser's rate is next to nothing, so what is learned is learned by the text encoders."""
    hyperparameters = {"learning_rate": 1e-7, **(CASES[name].text_encoders_alone or {})}
    adapter = {"rank": 4, "text_encoder": {"learning_rate": 2e-2}}
    learned = learn(name, own=hyperparameters, adapter=adapter)
    require_direction(learned, by_diffusers)
    require_promise(learned, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.text_encoders_alone is None])
def test_a_denoiser_learns_the_chosen_images_with_text_encoders(
    name: str, learn: Learn, by_diffusers: DiffusersLosses
) -> None:
    adapter = {"rank": 4, "target_modules": TARGETS, "text_encoder": {"learning_rate": 5e-3}}
    learned = learn(name, adapter=adapter)
    require_direction(learned, by_diffusers)
    require_promise(learned, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_the_chosen_images_from_streamed_pairs(
    name: str, learn: Learn, by_diffusers: DiffusersLosses, in_two_processes: Run
) -> None:
    learned = learn(name, in_two_processes, compute={"pairs": "streamed"})
    require_direction(learned, by_diffusers)
    require_promise(learned, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.uses_rejected])
def test_a_method_of_chosen_images_learns_the_same_without_rejected_ones(name: str, learn_once: Learn) -> None:
    adapters = [
        load_file(learned.directory / "output/pytorch_lora_weights.safetensors")
        for learned in (learn_once(name), learn_once(name, rejected=False))
    ]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])


@pytest.fixture(scope="module")
def in_two_processes() -> Iterator[Run]:
    """As ``accelerate launch`` starts them, with gloo between them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    main, other = (Server(rendezvous | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1"))

    def run(directory: Path, encodings: Path) -> Outcome:
        arguments = ["run", str(directory), "--cache", str(encodings)]
        events: list[Event] = []
        with ExitStack() as both:
            second = both.enter_context(other.run(*arguments, stderr=directory / "stderr-1.txt"))
            with main.run(*arguments, stderr=directory / "stderr.txt") as first:
                events += map(parse_event, first.stdout)
            if first.returncode != 0:
                second.send_signal(signal.SIGKILL)  # it would wait for the first
        return Outcome(events, first.returncode or second.returncode, (directory / "stderr.txt").read_text())

    yield run
    for server in (main, other):
        server.end()
