"""A result that does not load as the trained network is no result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import save_run
from tests.trainer.warm import ROOT
from trainer.spec.events import Done, Failed

pytestmark = pytest.mark.integration

WRONG = """

_right = kohya_weights


def kohya_weights(*arguments, **options):
    return {name: 1.01 * tensor for name, tensor in _right(*arguments, **options).items()}
"""


def test_an_exported_file_with_other_weights_ends_the_run_without_a_result(tiny_base: Path, tmp_path: Path) -> None:
    """With a copy of the trainer whose second format is off by a hundredth."""
    shutil.copytree(ROOT / "trainer", tmp_path / "code" / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "code" / "trainer" / "export" / "export.py").open("a") as exporter:
        exporter.write(WRONG)
    directory = save_run(tmp_path / "run", tiny_base, max_steps=2)
    outcome = run_program(directory, tmp_path / "cache", code=tmp_path / "code")
    assert outcome.returncode == 1
    last = outcome.events[-1]
    assert isinstance(last, Failed)
    assert (last.code, "adapter.safetensors" in last.message) == ("export_mismatch", True)
    assert not any(isinstance(event, Done) for event in outcome.events)
    assert not (directory / "output").exists()
