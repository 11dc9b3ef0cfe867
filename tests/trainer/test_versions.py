"""A run that one version of the trainer began and another, whose spec has one field more or fewer, goes on with."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import save_run
from tests.trainer.warm import ROOT
from trainer.spec.events import CheckpointWritten, Done, Event, Failed, Started

pytestmark = pytest.mark.integration

HYPERPARAMETERS = {"max_steps": 8, "batch_size": 3, "learning_rate": 2e-3}
LATER = "    invented: Flag = Field(False, description='A field that this version does not have.')\n"


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainer as a later version, with a field more in a run's sampling."""
    code = tmp_path_factory.mktemp("later")
    shutil.copytree(ROOT / "trainer", code / "trainer")
    path, end = code / "trainer/spec/run.py", "    seed: Seed = 0\n\n\nclass Mismatch"
    text = path.read_text()
    assert text.count(end) == 1
    path.write_text(text.replace(end, LATER + end))
    return code


def is_checkpoint(event: Event) -> bool:
    return isinstance(event, CheckpointWritten)


def history(directory: Path) -> str:
    return (directory / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def straight(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted, in a folder with its cache."""
    folder = tmp_path_factory.mktemp("straight")
    directory = save_run(folder / "run", tiny_base, **HYPERPARAMETERS)
    outcome = run_program(directory, folder / "cache")
    assert outcome.returncode == 0, outcome.stderr
    return folder


@pytest.mark.parametrize("upgraded", [True, False])
def test_a_run_goes_on_with_another_versions_trainer(
    tiny_base: Path, tmp_path: Path, straight: Path, later: Path, upgraded: bool
) -> None:
    first, second = (ROOT, later) if upgraded else (later, ROOT)
    directory = save_run(tmp_path / "run", tiny_base, **HYPERPARAMETERS)
    cache = straight / "cache"
    killed = run_program(directory, cache, stop_with=signal.SIGKILL, stop_at=is_checkpoint, code=first)
    assert killed.returncode == -9, killed.stderr
    resumed = run_program(directory, cache, code=second)
    assert isinstance(resumed.events[-1], Done), resumed.stderr
    assert [event.resumed_from_step for event in resumed.events if isinstance(event, Started)] == [2]
    assert history(directory) == history(straight / "run")


def test_a_version_does_not_train_without_what_it_does_not_know(tiny_base: Path, tmp_path: Path) -> None:
    directory = save_run(tmp_path / "run", tiny_base, max_steps=1)
    spec = json.loads((directory / "spec.json").read_text())
    (directory / "spec.json").write_text(json.dumps({**spec, "sampling": {**spec["sampling"], "invented": True}}))
    refused = run_program(directory, tmp_path / "cache")
    last = refused.events[-1]
    assert isinstance(last, Failed)
    assert last.message.startswith("sampling.invented: given True; unknown field")
    assert refused.returncode == 64
