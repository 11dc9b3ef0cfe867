"""The worker reacts to some of the trainer's codes; it cannot import them, so both sides type them."""

from __future__ import annotations

import re

import pytest

from store.settings import REPOSITORY
from trainer.runtime.errors import (
    BaseUnavailable,
    CacheEntryLost,
    DeviceFault,
    DiskFull,
    TrainerError,
    out_of_memory_code,
)
from worker.generation.generation import FIELDS
from worker.training.conclusion import TRANSIENT

pytestmark = pytest.mark.unit
TRAINER = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "trainer").rglob("*.py"))
WORKER = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "worker").rglob("*.py"))


def test_the_failures_that_are_tried_again_are_codes_of_the_trainers_errors() -> None:
    assert set(TRANSIENT) == {error.code for error in (BaseUnavailable, CacheEntryLost, DeviceFault, DiskFull)}
    assert set(TRANSIENT) <= {error.code for error in TrainerError.__subclasses__() if "code" in vars(error)}


def test_the_failures_that_name_a_field_of_the_request_are_codes_of_the_trainer() -> None:
    assert FIELDS.keys() <= set(re.findall(r'code="([a-z_]+)"', TRAINER))


def test_the_worker_and_the_trainer_have_one_code_for_a_lack_of_the_machines_memory_and_one_for_the_unforeseen() -> (
    None
):
    assert f'"{out_of_memory_code("host")}"' in WORKER
    assert 'Failed(code="internal_error"' in TRAINER
    assert re.findall(r'code == "([a-z_]+)"', WORKER) == ["internal_error", "internal_error"]
