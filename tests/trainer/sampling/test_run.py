"""A whole run that draws along the way: the reference mismatch that chooses beta, and samples."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from tests.trainer.program import Outcome, run_program
from tests.trainer.tiny_sdxl import PROMPTS, save_run, write_spec
from trainer.spec.events import BetaChosen, Event, MismatchMeasured, Phase, Progress, SampleWritten
from trainer.spec.methods import PRESET_BETAS

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Finished:
    directory: Path
    outcome: Outcome

    def files(self) -> dict[str, bytes]:
        folder = self.directory / "samples"
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def save(directory: Path, base: Path) -> Path:
    save_run(directory, base)
    write_spec(
        directory,
        base,
        {"max_steps": 6, "batch_size": 4},
        sampling={"prompts": PROMPTS[:2], "every_steps": 2, "steps": 2},
        mismatch={"samples": 6},
        checkpoints={"every_steps": 3},
    )
    return directory


@pytest.fixture(scope="module")
def straight(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("straight")
    outcome = run_program(save(folder / "run", tiny_base), folder / "cache")
    assert outcome.returncode == 0, outcome.stderr
    return Finished(folder / "run", outcome)


def test_beta_auto_follows_from_the_measured_mismatch(straight: Finished) -> None:
    events = straight.outcome.events
    (measured,) = (event for event in events if isinstance(event, MismatchMeasured))
    (beta,) = (event for event in events if isinstance(event, BetaChosen))
    assert measured.images == 6
    assert measured.low <= measured.similarity <= measured.high <= 1
    assert beta.beta in PRESET_BETAS.values()
    assert f"{measured.similarity:.2f}" in beta.reason


def test_samples_are_sampled_of_the_base_and_every_so_many_steps(straight: Finished) -> None:
    written = [event for event in straight.outcome.events if isinstance(event, SampleWritten)]
    assert [event.step for event in written] == [0, 2, 4, 6]
    for event in written:
        assert event.seconds > 0
        for path in (*event.paths, event.grid):
            with Image.open(straight.directory / path) as image:
                image.verify()
    with Image.open(straight.directory / written[0].paths[0]) as image:
        assert image.size == (32, 32)


def test_time_spent_sampling_is_distinguished_from_training(straight: Finished) -> None:
    phases = [event.phase for event in straight.outcome.events if isinstance(event, Phase)]
    assert phases.count("sampling") == 4
    assert {after for before, after in pairwise(phases) if before == "sampling"} <= {"training", "validating"}


def test_killed_and_run_again_the_samples_are_those_of_the_straight_run(
    straight: Finished, tiny_base: Path, tmp_path: Path
) -> None:
    broken = Finished(save(tmp_path / "run", tiny_base), Outcome())

    def is_past_a_checkpoint(event: Event) -> bool:
        return isinstance(event, Progress | SampleWritten) and event.step >= 4

    run_program(broken.directory, tmp_path / "cache", stop_with=signal.SIGKILL, stop_at=is_past_a_checkpoint)
    again = run_program(broken.directory, tmp_path / "cache")
    assert again.returncode == 0, again.stderr
    assert broken.files() == straight.files()
    assert not any(isinstance(event, MismatchMeasured | BetaChosen) for event in again.events)
