"""Workers on the real base model and trainer, a few steps long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.benchmark import data, judging, work
from demo.benchmark.__main__ import BASE
from demo.benchmark.plan import Scope
from demo.benchmark.trial import Results, Trial
from demo.benchmark.work import Worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
TRIAL = Trial("personalization", "mapo", 1.5e-3, 1024.0, 0, "test")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(data, "STEPS", 2)
    monkeypatch.setattr(judging, "SAMPLING_STEPS", 2)
    monkeypatch.setattr(work, "BASE_STEPS", 2)
    return iter(())


def new_worker(folder: Path) -> Worker:
    scope = Scope(("personalization",), ("mapo",), sweeps=False)
    return Worker(BASE.resolve(), folder / "home", Results(folder / "results"), scope)


def test_a_trial_is_trained_scored_and_kept_and_not_run_again(tmp_path: Path) -> None:
    worker = new_worker(tmp_path)
    assert worker.tried(TRIAL)
    result = Results(tmp_path / "results").get(TRIAL)
    assert result is not None
    assert len(result.success[0]) == len(result.base_success[0]) > 0
    assert len(result.fidelity[0]) > len(result.success[0])
    assert result.base_implicit_accuracy <= 1
    assert not (tmp_path / "home" / "runs" / TRIAL.key).exists()
    assert (tmp_path / "home" / "strips" / f"{TRIAL.key}.png").is_file()

    written = worker.results.path(TRIAL).stat().st_mtime_ns
    assert new_worker(tmp_path).tried(TRIAL)
    assert worker.results.path(TRIAL).stat().st_mtime_ns == written


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
