"""A job's fields are the same in the create request, the run's specification, the table, the answer and the guide."""

from __future__ import annotations

import re

import pytest
from openai.types.fine_tuning import FineTuningJob as OpenAIJob
from sqlalchemy import inspect

from api.errors.example_ids import BASE, JOB
from api.fine_tuning import examples
from api.fine_tuning.example_job import running
from api.fine_tuning.fields import JobAttributes, JobSources, column_of, columns
from api.fine_tuning.request import CreateFineTuningJob
from api.fine_tuning.run_spec import Offer, run_spec
from api.fine_tuning.schemas import GROUPS, STORED, FineTuningJob
from store.base_models import RegisteredBase
from store.settings import REPOSITORY
from store.tables.job import Job
from trainer.spec.run import RunSpec, TrainingOptions

pytestmark = pytest.mark.unit
OPERATORS = {"base", "name", "dinov2"}  # of a run's specification; no client chooses them
NOT_STORED = {"dry_run"}  # of a request; it makes no job
PAGE = (REPOSITORY / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Fine-tuning jobs\n")[2].partition("\n## ")[0]
NAMED = set(re.findall(r"`([a-z_0-9]+)`", SECTION))


def _request(**fields: object) -> CreateFineTuningJob:
    return CreateFineTuningJob.model_validate(examples.REQUEST | fields)


def test_the_guide_names_every_field_of_a_request() -> None:
    assert CreateFineTuningJob.model_fields.keys() - NAMED == set(), "docs/reference/http-api.md, Fine-tuning jobs"


def test_the_guide_names_every_field_of_an_answer_that_openai_does_not_have() -> None:
    assert FineTuningJob.model_fields.keys() - OpenAIJob.model_fields.keys() - NAMED == set()


def test_an_answer_has_all_of_openais_fields() -> None:
    assert OpenAIJob.model_fields.keys() - FineTuningJob.model_fields.keys() == set()


def test_the_guides_table_of_additions_has_every_group_of_options_with_its_fields() -> None:
    table = SECTION.partition("| option | what it decides |")[2].partition("\n\n")[0]
    rows = {
        name: set(re.findall(r"`([a-z_]+)`", text)) for name, text in re.findall(r"^\| `(\w+)` \| (.*)", table, re.M)
    }
    assert rows.keys() == set(GROUPS)
    for name in GROUPS:
        group = TrainingOptions.model_fields[name].annotation
        assert group is not None
        assert group.model_fields.keys() - rows[name] == set(), name


def test_an_answer_repeats_every_field_of_a_request() -> None:
    assert CreateFineTuningJob.model_fields.keys() - FineTuningJob.model_fields.keys() == NOT_STORED


def test_every_attribute_of_a_job_is_a_column() -> None:
    there = inspect(Job).column_attrs.keys()
    assert {name for name in JobAttributes.model_fields if column_of(name) not in there} == set(), "store/tables/job.py"
    assert JobAttributes.model_fields.keys() - STORED.keys() == set()


def test_a_runs_specification_has_every_option_of_the_request() -> None:
    own = CreateFineTuningJob.model_fields.keys() - JobAttributes.model_fields.keys() - JobSources.model_fields.keys()
    assert own - RunSpec.model_fields.keys() == NOT_STORED | {"integrations", "hyperparameters"}
    assert RunSpec.model_fields.keys() - own == OPERATORS


def test_what_a_client_gives_comes_back_as_it_was_given() -> None:
    base = RegisteredBase(BASE, "sdxl", "/bases/emoji-xl", None)
    given = {"suffix": "s", "metadata": {"k": "v"}, "priority": 3, "memory_gib": 24, "seed": 11, "adapter": {"rank": 3}}
    request = _request(**given)
    row = running()
    row.spec = run_spec(request, base, Offer({BASE: base}, None), JOB).model_dump(mode="json")
    for column, value in columns(request).items():
        setattr(row, column, value)
    answer = FineTuningJob.of(row).model_dump(mode="json")
    stored = request.model_dump(mode="json", exclude={*NOT_STORED, "integrations", "hyperparameters"})
    assert {name: answer[name] for name in stored} == stored


def test_a_row_that_lacks_an_option_of_this_version_is_still_shown() -> None:
    row = running()
    row.spec = {name: value for name, value in row.spec.items() if name not in GROUPS}
    answer = FineTuningJob.of(row).model_dump(mode="json")
    assert {name: answer[name] for name in GROUPS} == {name: {} for name in GROUPS}
