"""Images drawn from the base before training: once, with recorded seeds, resumable."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.trainer.program import Outcome, run_program
from tests.trainer.tiny_sdxl import save_run, write_spec
from trainer.spec.events import DataPrepared, Event, Phase, PhaseProgress

pytestmark = pytest.mark.integration

CLASS = {"class_prompt": "a drawing of a thing", "class_images": 5}


def save(directory: Path, base: Path, method: str = "mapo", **hyperparameters: Any) -> Path:
    """Every other pair has a chosen image alone, one of them for validation."""
    save_run(directory, base)
    manifest = directory / "data/manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows[1::2]:
        del row["rejected"]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    write_spec(
        directory,
        base,
        {"max_steps": 2, "preset": "personalization"} | hyperparameters
        if method == "mapo"
        else {"max_steps": 2} | hyperparameters,
        method=method,
        sampling={"steps": 3},
    )
    return directory


def finished(directory: Path, cache: Path) -> Outcome:
    outcome = run_program(directory, cache)
    assert outcome.returncode == 0, outcome.stderr
    return outcome


def drawn(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "drawn").glob("*.png"))}


def manifest(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "drawn/manifest.jsonl").read_text().splitlines()]


def test_pairs_without_a_rejected_image_get_one_at_the_chosen_images_size(tiny_base: Path, tmp_path: Path) -> None:
    directory = save(tmp_path / "run", tiny_base)
    outcome = finished(directory, tmp_path / "cache")
    (prepared,) = (event for event in outcome.events if isinstance(event, DataPrepared))
    assert prepared.drawn_images == 8
    records = manifest(directory)
    assert len({record["seed"] for record in records}) == len(records) == 8
    for record in records:
        with Image.open(directory / "drawn" / record["file"]) as image:
            assert image.size == (record["width"], record["height"]) == (40, 24)
            assert image.info["pairtune.seed"] == str(record["seed"])
            assert image.info["pairtune.prompt"] == record["prompt"]


def test_methods_that_train_on_chosen_images_alone_sample_for_validation_only(tiny_base: Path, tmp_path: Path) -> None:
    outcome = finished(save(tmp_path / "run", tiny_base, "sft"), tmp_path / "cache")
    (prepared,) = (event for event in outcome.events if isinstance(event, DataPrepared))
    assert prepared.drawn_images == 1


def test_dreambooth_samples_its_class_images_from_the_class_prompt(tiny_base: Path, tmp_path: Path) -> None:
    directory = save(tmp_path / "run", tiny_base, "dreambooth", **CLASS)
    finished(directory, tmp_path / "cache")
    class_images = [record for record in manifest(directory) if record["purpose"].startswith("class image")]
    assert [record["prompt"] for record in class_images] == [CLASS["class_prompt"]] * 5
    assert {(record["width"], record["height"]) for record in class_images} == {(32, 32)}


def test_killed_while_sampling_a_run_goes_on_with_the_images_it_has(tiny_base: Path, tmp_path: Path) -> None:
    straight = save(tmp_path / "straight", tiny_base, "dreambooth", **CLASS)
    finished(straight, tmp_path / "cache")
    broken = save(tmp_path / "broken", tiny_base, "dreambooth", **CLASS)

    def is_generating(event: Event) -> bool:
        return isinstance(event, Phase | PhaseProgress) and event.phase == "drawing"

    run_program(broken, tmp_path / "cache", stop_with=signal.SIGKILL, stop_at=is_generating)
    (broken / "drawn").mkdir(exist_ok=True)
    (broken / "drawn/.half.png.0a0b0c0d.partial").write_bytes(b"half")
    stored = sorted(drawn(straight))[::3]
    for name in stored:  # as if it had come this far
        (broken / "drawn" / name).write_bytes(drawn(straight)[name])
    before = [(broken / "drawn" / name).stat().st_ino for name in stored]
    finished(broken, tmp_path / "cache")
    assert drawn(broken) == drawn(straight)
    assert [(broken / "drawn" / name).stat().st_ino for name in stored] == before
    assert not list((broken / "drawn").glob("*.partial"))
    assert (broken / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
