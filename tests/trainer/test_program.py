"""The whole program as a process: trains, stops, resumes, exports."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.trainer.program import Outcome, run_program
from tests.trainer.tiny_sdxl import save_run, write_spec
from trainer.sampling.grid import CELL, GAP, HEADER, MARGIN
from trainer.spec.events import CheckpointWritten, Done, Event, Failed, Metrics, Phase, Progress, Started, Warned

pytestmark = pytest.mark.integration

ADAPTER = "output/pytorch_lora_weights.safetensors"
HYPERPARAMETERS = {"max_steps": 32, "batch_size": 3, "gradient_accumulation": 2, "learning_rate": 2e-3}
Kind = TypeVar("Kind", bound=Event)


@dataclass(frozen=True)
class Straight:
    """A run nobody interrupted; others of the same spec and data share its cache."""

    directory: Path
    cache: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def straight(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    directory = save_run(tmp_path_factory.mktemp("straight") / "run", tiny_base, **HYPERPARAMETERS)
    cache = tmp_path_factory.mktemp("cache")
    return Straight(directory, cache, run_program(directory, cache, fresh=True))


def of(kind: type[Kind], outcome: Outcome) -> list[Kind]:
    return [event for event in outcome.events if isinstance(event, kind)]


def is_checkpoint(event: Event) -> bool:
    return isinstance(event, CheckpointWritten)


def assert_same_run(directory: Path, straight: Straight) -> None:
    """Every step's losses and every file of the result, to the last bit."""
    history = (directory / "metrics.jsonl").read_text()
    assert history == (straight.directory / "metrics.jsonl").read_text()
    ours, theirs = (
        {path.name: path.read_bytes() for path in (run / "output").iterdir()} for run in (directory, straight.directory)
    )
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_run_trains_reports_and_ends_with_done(straight: Straight) -> None:
    outcome = straight.outcome
    assert outcome.returncode == 0, outcome.stderr
    (started,) = of(Started, outcome)
    assert (started.training_pairs, started.validation_pairs, started.resumed_from_step) == (14, 2, 0)
    assert [event.step for event in of(Metrics, outcome) if not event.final] == [0, 8, 16, 24, 32]
    assert of(Progress, outcome)[-1].step == 32
    assert list(dict.fromkeys(event.phase for event in of(Phase, outcome))) == [
        "loading",
        "caching",
        "drawing",
        "validating",
        "training",
        "sampling",
        "exporting",
    ]
    assert isinstance(outcome.events[-1], Done)


def test_training_lowers_the_held_out_objective(straight: Straight) -> None:
    base, *_, final = of(Metrics, straight.outcome)
    assert final.final
    assert final.objective < base.objective


def test_history_has_every_step_once_and_every_validation(straight: Straight) -> None:
    rows = [json.loads(line) for line in (straight.directory / "output/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 33))
    assert [row["step"] for row in rows if row["kind"] == "validation" and not row["final"]] == [0, 8, 16, 24, 32]


def test_the_best_and_the_last_two_checkpoints_stay(straight: Straight) -> None:
    best = min(of(Metrics, straight.outcome)[1:-1], key=lambda measured: measured.objective).step
    stored = {int(path.name.removeprefix("step-")) for path in (straight.directory / "checkpoints").iterdir()}
    assert stored == {best, 24, 32}


def test_the_adapter_in_diffusers_equals_its_weights_merged_by_hand(straight: Straight, tiny_base: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_base)
    pipeline.load_lora_weights(str(straight.directory / "output"))
    by_hand = StableDiffusionXLPipeline.from_pretrained(tiny_base).unet
    base = StableDiffusionXLPipeline.from_pretrained(tiny_base).unet
    adapter = load_file(straight.directory / ADAPTER)
    with torch.no_grad():
        for name in [key.removesuffix(".lora_A.weight") for key in adapter if key.endswith(".lora_A.weight")]:
            update = adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"]
            by_hand.get_submodule(name.removeprefix("unet.")).weight += update  # the scale is in it
    inputs = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    conditions = {
        "encoder_hidden_states": torch.randn(2, 77, 128, generator=torch.Generator().manual_seed(2)),
        "added_cond_kwargs": {"text_embeds": torch.ones(2, 64), "time_ids": torch.full((2, 6), 32.0)},
    }
    with torch.no_grad():
        loaded, merged, without = (unet(inputs, 500, **conditions).sample for unet in (pipeline.unet, by_hand, base))
    assert (loaded - merged).abs().max() <= 1e-4
    assert (loaded - without).abs().max() > 1e-3


def test_the_adapter_names_what_it_was_made_from(straight: Straight) -> None:
    with safe_open(straight.directory / ADAPTER, framework="pt") as adapter:
        metadata = adapter.metadata()
    base = json.loads(metadata["pairtune.spec"])["base"]
    assert base["source"] == base["name"] == metadata["pairtune.base"]
    assert metadata["pairtune.seed"] == "5"
    assert metadata["pairtune.dataset"].startswith("sha256:")
    assert json.loads(metadata["pairtune.versions"])["torch"].startswith(torch.__version__.split("+")[0])
    config = json.loads(metadata["lora_adapter_metadata"])
    assert config["unet.lora_alpha"] == config["unet.r"] == 4  # the run's alpha of 8 is in the weights


def test_the_manifest_names_every_other_file_and_what_they_were_made_from(straight: Straight) -> None:
    output = straight.directory / "output"
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["files"] == {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in output.iterdir()
        if path.name != "manifest.json"
    }
    assert manifest["files"].keys() >= {"adapter.safetensors", "README.md", "metrics.jsonl", "samples.png"}
    assert manifest["base"] == {"name": "tiny", "family": "sdxl", "source": "tiny", "revision": None, "config": None}
    assert (manifest["seed"], manifest["spec"]) == (5, f"sha256:{manifest['files']['spec.json']['sha256']}")
    with safe_open(straight.directory / ADAPTER, framework="pt") as adapter:
        metadata = adapter.metadata()
    assert (manifest["dataset"], manifest["run"]) == (
        metadata["pairtune.dataset"],
        f"sha256:{metadata['pairtune.run']}",
    )
    assert (manifest["best_step"], manifest["versions"]) == (
        int(metadata["pairtune.best_step"]),
        json.loads(metadata["pairtune.versions"]),
    )


def test_a_run_without_samples_shows_what_the_adapter_does_to_held_out_prompts(straight: Straight) -> None:
    with Image.open(straight.directory / "output/samples.png") as file:
        sheet = file.convert("RGB")
    assert sheet.size == (MARGIN + 4 * (CELL + GAP), HEADER + 2 * (CELL + GAP))
    base, adapter = (
        sheet.crop((MARGIN, HEADER + row * (CELL + GAP), sheet.width - GAP, HEADER + row * (CELL + GAP) + CELL))
        for row in range(2)
    )
    assert len(base.getcolors(2**20) or ()) > 100
    assert base.tobytes() != adapter.tobytes()


def test_no_file_that_is_handed_out_says_where_the_base_lies(straight: Straight, tiny_base: Path) -> None:
    for path in (straight.directory / "output").iterdir():
        assert str(tiny_base).encode() not in path.read_bytes(), path.name


def test_running_a_finished_directory_again_changes_nothing(straight: Straight) -> None:
    before = {path: path.stat().st_mtime_ns for path in straight.directory.rglob("*") if path.name != "stderr.txt"}
    outcome = run_program(straight.directory, straight.cache)
    assert outcome.events[-1] == straight.outcome.events[-1]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_sigterm_then_a_rerun_equals_the_straight_run(tiny_base: Path, tmp_path: Path, straight: Straight) -> None:
    directory = save_run(tmp_path / "run", tiny_base, **HYPERPARAMETERS)
    stopped = run_program(
        directory, straight.cache, stop_with=signal.SIGTERM, stop_at=lambda event: isinstance(event, Progress)
    )
    assert stopped.returncode == 75, stopped.stderr
    last = stopped.events[-1]
    assert isinstance(last, CheckpointWritten)
    assert last.step < 32
    resumed = run_program(directory, straight.cache)
    assert of(Started, resumed)[0].resumed_from_step == last.step
    assert_same_run(directory, straight)


def test_sigterm_before_training_leaves_nothing_and_exits_75(
    tiny_base: Path, tmp_path: Path, straight: Straight
) -> None:
    directory = save_run(tmp_path / "run", tiny_base, **HYPERPARAMETERS)
    stopped = run_program(
        directory, straight.cache, stop_with=signal.SIGTERM, stop_at=lambda event: isinstance(event, Phase)
    )
    assert stopped.returncode == 75, stopped.stderr
    assert not (directory / "checkpoints").exists()
    assert not of(Failed, stopped)


def test_kill_9_and_a_damaged_checkpoint_then_reruns_equal_the_straight_run(
    tiny_base: Path, tmp_path: Path, straight: Straight
) -> None:
    directory = save_run(tmp_path / "run", tiny_base, **HYPERPARAMETERS)
    first = run_program(directory, straight.cache, stop_with=signal.SIGKILL, stop_at=is_checkpoint)
    assert first.returncode == -9
    second = run_program(directory, straight.cache, stop_with=signal.SIGKILL, stop_at=is_checkpoint)
    assert of(Started, second)[0].resumed_from_step == 8
    tensors = directory / "checkpoints/step-00000016/tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-100] ^= 1
    tensors.write_bytes(content)
    third = run_program(directory, straight.cache)
    assert third.returncode == 0, third.stderr
    assert [warning.code for warning in of(Warned, third)] == ["checkpoint_damaged"]
    assert of(Started, third)[0].resumed_from_step == 8
    assert_same_run(directory, straight)


def test_a_run_continued_elsewhere_from_its_last_checkpoint_alone_equals_the_straight_run(
    tiny_base: Path, tmp_path: Path, straight: Straight
) -> None:
    """As on another machine, which gets spec, data and one checkpoint."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        save_run(directory, tiny_base, **HYPERPARAMETERS)
    run_program(first, straight.cache, stop_with=signal.SIGKILL, stop_at=is_checkpoint)
    shutil.copytree(first / "checkpoints/step-00000008", second / "checkpoints/step-00000008")
    assert run_program(second, straight.cache).returncode == 0
    assert_same_run(second, straight)


def test_a_bad_run_names_every_fault_at_once_and_exits_64(tiny_base: Path, tmp_path: Path) -> None:
    directory = save_run(tmp_path / "run", tiny_base)
    write_spec(directory, tiny_base, {"beta": -1, "lr_scheduler": "exponential", "batchsize": 4}, seed="x")
    (directory / "data/0-chosen.png").write_text("no image")
    (directory / "data/1-rejected.png").unlink()
    outcome = run_program(directory, tmp_path / "cache")
    assert outcome.returncode == 64
    (failed,) = of(Failed, outcome)
    assert failed.code == "bad_spec"
    lines = failed.message.splitlines()
    hyperparameters = "method.mapo.hyperparameters"
    for start, allowed in [
        (f"{hyperparameters}.beta: given -1;", "greater than 0 or should be 'auto'"),
        (f"{hyperparameters}.lr_scheduler: given 'exponential';", "'constant', 'linear' or 'cosine'"),
        (f"{hyperparameters}.batchsize: given 4;", "unknown field; allowed here: batch_size"),
        ("seed: given 'x';", "integer"),
        ("pair pair-0 chosen: given '0-chosen.png';", "PNG, JPEG, WEBP"),
        ("pair pair-1 rejected: given '1-rejected.png';", "No such file"),
    ]:
        assert any(line.startswith(start) and allowed in line for line in lines), failed.message
    assert len(lines) == 6
