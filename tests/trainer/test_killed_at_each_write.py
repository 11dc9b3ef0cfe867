"""A trainer that is killed before each file that it opens and each rename: what was there stays whole, nothing half is
seen, and the run that goes on ends as one that nobody killed."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import save_run

pytestmark = pytest.mark.integration
SHORT = {"max_steps": 1, "batch_size": 2, "preset": "style"}
FEWEST = 8  # writes in a run: a checkpoint, the output, the log of its metrics


@dataclass(frozen=True)
class Straight:
    """A run that nobody killed; the others find what it has cached."""

    directory: Path
    cache: Path


@pytest.fixture(scope="module")
def straight(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    directory = save_run(tmp_path_factory.mktemp("straight") / "run", tiny_base, **SHORT)
    cache = tmp_path_factory.mktemp("cache")
    outcome = run_program(directory, cache)
    assert outcome.returncode == 0, outcome.stderr
    return Straight(directory, cache)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def whole(checkpoint: Path) -> bool:
    """By its own manifest, which names all of its other files."""
    if not (checkpoint / "manifest.json").exists():
        return False
    named: dict[str, str] = json.loads((checkpoint / "manifest.json").read_bytes())
    found = {name: hashlib.sha256(content).hexdigest() for name, content in files(checkpoint).items()}
    return {name: found.get(name) for name in named} == named


def half_seen(directory: Path, straight: Path) -> list[str]:
    """What has its final name and is not what a run that nobody killed writes under it."""
    checkpoints = [path for path in (directory / "checkpoints").glob("step-*") if not whole(path)]
    output = files(directory / "output") if (directory / "output").exists() else None
    return [str(path) for path in checkpoints] + (
        ["output"] if output not in (None, files(straight / "output")) else []
    )


def test_a_run_killed_at_any_write_goes_on_to_the_same_end(tiny_base: Path, tmp_path: Path, straight: Straight) -> None:
    kill_at = 0
    while True:
        kill_at += 1
        directory = save_run(tmp_path / str(kill_at), tiny_base, **SHORT)
        outcome = run_program(directory, straight.cache, kill_at=kill_at)
        if outcome.returncode == 0:
            break
        assert outcome.returncode == -signal.SIGKILL, outcome.stderr
        assert half_seen(directory, straight.directory) == [], f"killed at write {kill_at}"
        following = run_program(directory, straight.cache)
        assert following.returncode == 0, following.stderr
        assert files(directory / "output") == files(straight.directory / "output"), f"killed at write {kill_at}"
    assert kill_at > FEWEST
