"""Every method as a process on the same data: the same metrics, the same exports, exact resume."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.program import Outcome, run_program
from tests.trainer.tiny_sdxl import save_run, write_spec
from trainer.spec.events import Done, Event, Metrics, Progress, Started

pytestmark = pytest.mark.integration

LENGTH = {"max_steps": 12, "batch_size": 3, "gradient_accumulation": 2, "learning_rate": 2e-3}
METHODS: dict[str, dict[str, Any]] = {
    "mapo": {"form": "reference-code"},
    "dpo": {},
    "sft": {},
    "dco": {},
    "dreambooth": {"class_prompt": "a drawing of a thing", "class_images": 3, "instance_prompt": "a drawing of sks"},
}


def save(directory: Path, base: Path, method: str, **options: Any) -> Path:
    save_run(directory, base)
    options = {"checkpoints": {"every_steps": 4}, "sampling": {"steps": 2}} | options
    write_spec(directory, base, LENGTH | METHODS[method], method=method, **options)
    return directory


def finished(directory: Path, cache: Path) -> Outcome:
    outcome = run_program(directory, cache)
    assert outcome.returncode == 0, outcome.stderr
    return outcome


def history(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def runs(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, tuple[Path, Outcome]]:
    made = {}
    for method in METHODS:
        directory = save(tmp_path_factory.mktemp(method) / "run", tiny_base, method)
        made[method] = directory, finished(directory, cache)
    return made


def test_all_methods_measure_the_same_pairs_on_the_same_draws(runs: dict[str, tuple[Path, Outcome]]) -> None:
    bases = {
        method: next(event for event in outcome.events if isinstance(event, Metrics))
        for method, (_, outcome) in runs.items()
        if method != "dreambooth"  # its instance prompt replaces the pairs' own
    }
    assert len({(base.chosen_loss, base.rejected_loss, base.pairs) for base in bases.values()}) == 1


def test_all_methods_hand_out_the_same_files(runs: dict[str, tuple[Path, Outcome]]) -> None:
    assert len({frozenset(path.name for path in (run / "output").iterdir()) for run, _ in runs.values()}) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_method_lowers_its_own_held_out_objective(runs: dict[str, tuple[Path, Outcome]], method: str) -> None:
    base, *_, final = (event for event in runs[method][1].events if isinstance(event, Metrics))
    assert final.objective < base.objective


@pytest.mark.parametrize("method", ["sft", "dco", "dreambooth"])
def test_where_rejected_images_are_not_trained_on_no_margin_is_reported(
    runs: dict[str, tuple[Path, Outcome]], method: str
) -> None:
    progress = [event for event in runs[method][1].events if isinstance(event, Progress)]
    assert {(event.margin, event.rejected_loss) for event in progress} == {(None, None)}


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_step_a_run_ends_as_if_it_never_was(
    runs: dict[str, tuple[Path, Outcome]], method: str, tiny_base: Path, cache: Path, tmp_path: Path
) -> None:
    directory = save(tmp_path / "run", tiny_base, method)
    chance = random.Random(method)
    for _ in range(2):
        seen, last = [0], chance.randrange(4, 40)

        def is_time(_event: Event, seen: list[int] = seen, last: int = last) -> bool:
            seen[0] += 1
            return seen[0] == last

        run_program(directory, cache, stop_with=signal.SIGKILL, stop_at=is_time)
    outcome = finished(directory, cache)
    assert isinstance(outcome.events[-1], Done)
    straight, _ = runs[method]
    assert history(directory) == history(straight)
    ours, theirs = (load_file(path / "output/pytorch_lora_weights.safetensors") for path in (directory, straight))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_streamed_pairs_train_the_same_adapter(
    runs: dict[str, tuple[Path, Outcome]], tiny_base: Path, cache: Path, tmp_path: Path
) -> None:
    directory = save(tmp_path / "run", tiny_base, "mapo", compute={"pairs": "streamed"})
    finished(directory, cache)
    joint, streamed = (
        [row["loss"] for row in history(folder) if row["kind"] == "train"] for folder in (runs["mapo"][0], directory)
    )
    assert streamed == pytest.approx(joint, rel=1e-4)


def test_mirrored_pairs_and_caption_templates_train_and_resume(tiny_base: Path, cache: Path, tmp_path: Path) -> None:
    options = {"data": {"horizontal_flip": True, "caption_templates": ["{prompt}", "a picture: {prompt}"]}}
    straight = save(tmp_path / "straight", tiny_base, "sft", **options)
    finished(straight, cache)
    stopped = save(tmp_path / "stopped", tiny_base, "sft", **options)
    run_program(stopped, cache, stop_with=signal.SIGTERM, stop_at=lambda event: isinstance(event, Progress))
    resumed = finished(stopped, cache)
    assert any(isinstance(event, Started) and event.resumed_from_step > 0 for event in resumed.events)
    assert history(stopped) == history(straight)
