"""Which options of a run go together, and the defaults that the docs state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainer.spec.run import TrainingOptions

pytestmark = pytest.mark.unit
FAILURES = Path(__file__).parents[3] / "docs" / "operations" / "failures.md"


def options(**given: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"method": {"type": "mapo"}, **given})


def test_a_streamed_pair_and_dropout_go_each_alone_and_not_together() -> None:
    assert options(compute={"pairs": "streamed"}).compute.pairs == "streamed"
    assert options(adapter={"dropout": 0.1}).adapter.dropout == 0.1
    with pytest.raises(ValidationError, match=r"adapter\.dropout"):
        options(compute={"pairs": "streamed"}, adapter={"dropout": 0.1})


def test_samples_every_so_many_steps_need_prompts() -> None:
    assert options(sampling={"prompts": ["a hat"], "every_steps": 5}).sampling.every_steps == 5
    with pytest.raises(ValidationError, match=r"sampling\.prompts"):
        options(sampling={"every_steps": 5})


def test_a_run_is_saved_as_often_as_the_docs_say() -> None:
    seconds = options().checkpoints.every_seconds
    assert f"every {seconds:,.0f} s of training" in FAILURES.read_text(encoding="utf-8")
