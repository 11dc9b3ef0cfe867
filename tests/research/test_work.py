"""Workers on the real base model and trainer, a few steps long and on a few prompts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from demo.emoji.domains import emoji_of
from research import data
from research.editions import BASE, edition
from research.plan import Scope, wanted
from research.trial import Results, Trial
from research.trials import judging, work
from research.trials.work import Worker
from tests.api.polling import until

pytestmark = pytest.mark.integration
TRIAL = Trial("personalization", "mapo", 1.5e-3, 1024.0, 0, "test")
FEW = 6  # other prompts
STARTED, ENDED = 120, 60  # seconds at most: a worker's libraries take several to load


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    every = emoji_of
    monkeypatch.setattr(data, "STEPS", 2)
    monkeypatch.setattr(data, "DRAWS", 1)
    monkeypatch.setattr(judging, "SAMPLING_STEPS", 2)
    monkeypatch.setattr(judging, "SUBJECT_SEEDS", {"test": 1})
    monkeypatch.setattr(judging, "emoji_of", lambda split: every(split)[:FEW])
    monkeypatch.setattr(work, "BASE_STEPS", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network gains nothing by a second, and loses much where cores are busy
    yield
    torch.set_num_threads(threads)


def new_worker(folder: Path) -> Worker:
    scope = Scope(("personalization",), ("mapo",), sweeps=False)
    return Worker(BASE.resolve(), folder / "home", Results(folder / "results"), scope)


def test_a_trial_is_trained_scored_and_stored_and_not_run_again(tmp_path: Path) -> None:
    """Also where a killed worker has left half a run and half a result."""
    worker = new_worker(tmp_path)
    half_run, half_result = tmp_path / "home" / "runs" / TRIAL.key / "output", worker.results.path(TRIAL)
    half_run.mkdir(parents=True)
    half_result.parent.mkdir()
    half_result.with_name(f"{half_result.name}.1").write_text('{"trial": {"dom', encoding="utf-8")

    assert worker.tried(TRIAL)
    result = Results(tmp_path / "results").get(TRIAL)
    assert result is not None
    assert len(result.success[0]) == len(result.base_success[0]) == 6
    assert len(result.fidelity[0]) == len(result.base_fidelity[0]) == FEW
    assert result.base_implicit_accuracy <= 1
    assert not half_run.parent.exists()
    assert (tmp_path / "home" / "strips" / f"{TRIAL.key}.png").is_file()

    written = half_result.stat().st_mtime_ns
    assert new_worker(tmp_path).tried(TRIAL)
    assert half_result.stat().st_mtime_ns == written


def test_what_another_worker_runs_is_left_to_it(tmp_path: Path) -> None:
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with new_worker(tmp_path).claimed(TRIAL) as mine:
            assert mine
            taken.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert taken.wait(60)
    assert not new_worker(tmp_path).tried(TRIAL)
    done.set()
    other.join()
    assert Results(tmp_path / "results").get(TRIAL) is None


def test_what_a_killed_worker_or_a_stopped_benchmark_leaves_is_run_again(tmp_path: Path) -> None:
    quick = edition("quick", tmp_path)
    trial = next(wanted(quick.scope, quick.results))
    prepared = tmp_path / "runs" / trial.key / "spec.json"
    parent = started(tmp_path)
    until(prepared.exists, seconds=STARTED)
    (worker,) = psutil.Process(parent.pid).children()
    worker.kill()
    assert parent.wait(ENDED) == 1
    assert quick.results.get(trial) is None

    prepared.unlink()
    parent = started(tmp_path)
    until(prepared.exists, seconds=STARTED)
    (worker,) = psutil.Process(parent.pid).children()
    parent.terminate()
    assert parent.wait(ENDED) == 128 + signal.SIGTERM
    assert not worker.is_running()
    assert quick.results.get(trial) is None


def started(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "research", "--quick", "--home", str(home), "--workers", "1", "work"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
