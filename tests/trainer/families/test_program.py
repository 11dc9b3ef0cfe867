"""The whole program on a tiny base of every family: train, export, reload, sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import PROMPTS, save_run, write_spec
from trainer.spec.events import BetaChosen, Metrics
from trainer.spec.family_facts import FAMILIES, FamilyName

pytestmark = pytest.mark.integration

LENGTH = {"max_steps": 8, "batch_size": 4, "learning_rate": 2e-3}


@pytest.mark.parametrize("family", SAVE_BASE)
@pytest.mark.parametrize("method", ["mapo", "dpo"])
def test_a_family_trains_and_its_adapter_loads_and_samples(tmp_path: Path, family: FamilyName, method: str) -> None:
    base = SAVE_BASE[family](tmp_path / "base")
    directory = save_run(tmp_path / "run", base)
    write_spec(directory, base, LENGTH | preset(method), method=method, family=family)
    outcome = run_program(directory, tmp_path / "cache")
    assert outcome.returncode == 0, outcome.stderr
    (first, *_, final) = (event for event in outcome.events if isinstance(event, Metrics))
    if method == "mapo":  # random pictures have no order that two held-out pairs could show
        assert final.objective < first.objective
    pipeline = getattr(diffusers, FAMILIES[family].pipeline).from_pretrained(base)
    before = image(pipeline)
    pipeline.load_lora_weights(str(directory / "output"))
    assert np.isfinite(image(pipeline)).all()
    assert np.abs(image(pipeline) - before).max() > 0


def preset(method: str) -> dict[str, Any]:
    return {"preset": "style"} if method == "mapo" else {}


def image(pipeline: Any) -> np.ndarray[Any, Any]:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    images = pipeline(
        PROMPTS[0], height=32, width=32, num_inference_steps=2, generator=generator, output_type="np"
    ).images
    return np.asarray(images[0])


@pytest.mark.parametrize(("family", "is_scaled"), [("sdxl", False), ("sd3", True)])
def test_beta_is_scaled_by_the_loss_of_networks_that_predict_something_else_than_noise(
    tmp_path: Path, family: FamilyName, is_scaled: bool
) -> None:
    base = SAVE_BASE[family](tmp_path / "base")
    directory = save_run(tmp_path / "run", base)
    write_spec(directory, base, LENGTH | {"preset": "style", "max_steps": 2}, family=family)
    outcome = run_program(directory, tmp_path / "cache")
    (chosen,) = (event for event in outcome.events if isinstance(event, BetaChosen))
    measured = next(event for event in outcome.events if isinstance(event, Metrics))
    assert chosen.beta == pytest.approx(64.0 * 0.1 / measured.base_chosen_loss if is_scaled else 64.0, rel=1e-6)
    assert "style" in chosen.reason
