"""Drawing from a base, an adapter and a checkpoint: seeds, sizes, and ``python -m trainer sample`` as a process."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import PROMPTS, save_run, write_spec
from tests.trainer.warm import ROOT
from trainer.program import ignore
from trainer.run_directory.run import read_sample_spec
from trainer.runtime.errors import BadRun
from trainer.runtime.event_stream import PhaseReporter
from trainer.runtime.signals import StopRequest
from trainer.sample_request import run_sample_request
from trainer.spec.events import EXIT_BAD_SPEC, Event, Failed, Sampled, parse_event
from trainer.spec.sample_spec import MAX_SEED, SampleSpec

Given = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A finished run of the tiny base whose adapter changes what is drawn."""

    directory: Path
    adapter: Given
    token: str | None


@dataclass(frozen=True)
class Drawing:
    directory: Path
    drawn: Sampled

    def pixels(self, index: int = 0) -> np.ndarray:
        return np.asarray(Image.open(self.directory / "images" / f"{index}.png"), dtype=int)


Draw = Callable[..., Drawing]


@pytest.fixture
def draw(tmp_path: Path, tiny_base: Path) -> Draw:
    """Call with fields of draw.json, and a function that fills DIR/adapter/."""

    def run(fill: Callable[[Path], None] = lambda _: None, **fields: Any) -> Drawing:
        directory = tmp_path / f"drawing-{len(list(tmp_path.iterdir()))}"
        (directory / "adapter").mkdir(parents=True)
        fill(directory / "adapter")
        base = {"name": "tiny", "family": "sdxl", "source": str(tiny_base)}
        requested = {"base": base, "prompt": PROMPTS[0], "seed": 3, "steps": 3} | fields
        (directory / "draw.json").write_text(json.dumps(requested))
        return Drawing(
            directory, run_sample_request(read_sample_spec(directory), directory, PhaseReporter(ignore), StopRequest())
        )

    return run


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """With text encoders and a learned word, so that all that an adapter may consist of has to be loaded."""
    directory = save_run(tmp_path_factory.mktemp("trained") / "run", tiny_base)
    adapter = {
        "rank": 4,
        "text_encoder": {"rank": 2, "learning_rate": 0.05},
        "token": {"text": "<thing>", "initial": "cat", "learning_rate": 1.0},
    }
    write_spec(
        directory,
        tiny_base,
        {"max_steps": 4, "batch_size": 4, "learning_rate": 0.05},
        method="sft",
        adapter=adapter,
        data={"caption_templates": ["{prompt} <thing>"]},
        checkpoints={"every_steps": 4},
    )
    outcome = run_program(directory, tmp_path_factory.mktemp("cache"))
    assert outcome.returncode == 0, outcome.stderr
    return Trained(directory, adapter, "<thing>")


def difference(one: Drawing, other: Drawing, index: int = 0) -> int:
    return int(np.abs(one.pixels(index) - other.pixels(index)).max())


@pytest.mark.integration
def test_an_image_depends_on_its_seed_and_not_on_how_many_are_sampled_with_it(draw: Draw) -> None:
    several = draw(n=2, seed=MAX_SEED)
    assert list(several.drawn.files) == ["0.png", "1.png"]
    assert (several.drawn.width, several.drawn.height, several.drawn.guidance) == (32, 32, 5.0)
    again, other = draw(seed=MAX_SEED), draw(seed=0)
    assert again.drawn.files["0.png"] == several.drawn.files["0.png"]
    assert other.drawn.files["0.png"] == several.drawn.files["1.png"]  # the seed after the last
    assert difference(again, other) > 1
    reported = Image.open(other.directory / "images" / "0.png").text  # type: ignore[attr-defined]
    assert (reported["pairtune.prompt"], reported["pairtune.seed"], reported["pairtune.base"]) == (
        PROMPTS[0],
        "0",
        "tiny",
    )


@pytest.mark.integration
def test_size_prompt_and_guidance_are_as_requested(draw: Draw) -> None:
    plain = draw(width=40, height=24)
    assert plain.pixels().shape == (24, 40, 3)
    away, unguided = (draw(width=40, height=24, **one) for one in ({"negative_prompt": PROMPTS[1]}, {"guidance": 1}))
    assert difference(plain, away) > 1
    assert difference(plain, unguided) > 1


def program(directory: Path) -> tuple[int, Event]:
    """Exit code and last event of the real program."""
    command = [sys.executable, "-m", "trainer", "sample", str(directory)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, parse_event(ended.stdout.splitlines()[-1])


@pytest.mark.integration
def test_the_program_samples_the_same_and_reports_what_it_wrote(draw: Draw) -> None:
    before = draw()
    code, last = program(before.directory)
    assert isinstance(last, Sampled)
    assert (code, last.files) == (0, before.drawn.files)
    content = (before.directory / "images" / "0.png").read_bytes()
    assert last.files["0.png"] == hashlib.sha256(content).hexdigest()


@pytest.mark.integration
def test_a_size_that_the_base_cannot_have_is_refused_with_what_it_can(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(BadRun, match="size: given 42x24; sides of tiny are multiples of 4") as refused:
        draw(width=42, height=24)
    assert refused.value.code == "invalid_size"
    [directory] = tmp_path.iterdir()
    code, last = program(directory)
    assert isinstance(last, Failed)
    assert (code, last.code) == (EXIT_BAD_SPEC, "invalid_size")


@pytest.mark.integration
def test_an_export_and_its_checkpoint_sample_the_same_and_another_than_the_base(draw: Draw, trained: Trained) -> None:
    def export(folder: Path) -> None:
        for name in ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors"):
            shutil.copy(trained.directory / "output" / name, folder)

    def checkpoint(folder: Path) -> None:
        shutil.copy(trained.directory / "checkpoints" / "step-00000004" / "tensors.safetensors", folder)

    requested = {"prompt": f"{PROMPTS[0]} {trained.token}", "adapter": trained.adapter}
    exported = draw(export, **requested, weights="export")
    assert difference(exported, draw(checkpoint, **requested, weights="checkpoint")) <= 1
    assert difference(exported, draw(prompt=requested["prompt"])) > 1
    weaker, none = (draw(export, **requested, weights="export", adapter_scale=scale) for scale in (0.5, 0))
    assert difference(exported, weaker) > 1
    assert difference(weaker, none) > 1


@pytest.mark.integration
def test_a_checkpoint_of_another_adapter_is_refused(draw: Draw, trained: Trained) -> None:
    def checkpoint(folder: Path) -> None:
        shutil.copy(trained.directory / "checkpoints" / "step-00000004" / "tensors.safetensors", folder)

    with pytest.raises(BadRun) as refused:
        draw(checkpoint, adapter={"rank": 4}, weights="checkpoint")
    assert refused.value.code == "wrong_base"


@pytest.mark.unit
def test_seeds_follow_one_another_and_begin_again_after_the_last() -> None:
    base = {"name": "tiny", "family": "sdxl", "source": "/tiny"}
    requested = SampleSpec.model_validate({"base": base, "prompt": "a cat", "seed": MAX_SEED - 1, "n": 3})
    assert requested.seeds == [MAX_SEED - 1, MAX_SEED, 0]
