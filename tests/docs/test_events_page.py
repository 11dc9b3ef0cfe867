"""docs/reference/events.md has every kind of event that a job's log can have, each with all of its data."""

from __future__ import annotations

import dataclasses
import re
from typing import get_args

import pytest

from intake.prepare import Progress as Reading
from store.job_status import JobStatus
from store.settings import REPOSITORY
from trainer.spec.events import Event, PhaseName, TimestepBin

pytestmark = pytest.mark.unit
PAGE = (REPOSITORY / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
# What the supervisor turns into rows or states, and warnings, which have a section of their own.
NO_EVENTS = {"phase_progress", "checkpoint", "done", "drawn", "failed", "warning"}
# Data that the log has beside the trainer's own, and data that it has in place of it.
OPENAI = {"progress": {"train_loss", "total_steps"}, "metrics": {"valid_loss", "full_valid_loss"}}
OTHER = {
    "sample": {"step", "file_id", "seconds"},
    "reading": {"file", *(field.name for field in dataclasses.fields(Reading))},
}


def documented() -> dict[str, set[str]]:
    """The fields in the table of each section, by the kind that is its heading."""
    sections = re.split(r"^### `(\w+)`\n", PAGE, flags=re.MULTILINE)[1:]
    return {
        kind: {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
        for kind, text in zip(sections[::2], sections[1::2], strict=True)
    }


def of_the_trainer() -> dict[str, set[str]]:
    union, _ = get_args(Event)
    schemas = [model.model_json_schema()["properties"] for model in get_args(union)]
    return {schema["event"]["const"]: set(schema) - {"event"} for schema in schemas}


def test_the_page_has_every_kind_of_event_with_all_of_its_data_and_no_other() -> None:
    trainers = {kind: fields for kind, fields in of_the_trainer().items() if kind not in NO_EVENTS}
    wanted = {kind: fields | OPENAI.get(kind, set()) for kind, fields in trainers.items()} | OTHER
    assert documented() == wanted


def test_every_kind_that_is_not_on_the_page_is_one_of_the_trainer() -> None:
    assert of_the_trainer().keys() >= NO_EVENTS


def test_the_page_names_every_status_every_phase_and_all_figures_of_a_timestep() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert {*JobStatus, *get_args(PhaseName), *TimestepBin.model_fields} - named == set()
