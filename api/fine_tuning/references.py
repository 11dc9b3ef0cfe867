"""What a create request names: its base model, files and datasets, found even when its form is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.datasets.revision_ids import Named, named, revision_id
from api.errors.field_errors import FieldError
from api.errors.table import message_of, row_of
from store.base_models import RegisteredBase, find_base
from store.datasets import datasets
from store.errors import DatasetNotFound, FileNotFound, ModelNotFound, RevisionNotFound
from store.files import files
from store.jobs.jobs import PairSource
from store.tables.dataset import DatasetRevision
from store.tables.file import File


@dataclass(frozen=True)
class References:
    """None where the request names nothing usable; ``field_errors`` says why."""

    base: RegisteredBase | None
    training_file: PairSource | None
    validation_file: PairSource | None
    field_errors: tuple[FieldError, ...]

    @property
    def revisions(self) -> list[DatasetRevision]:
        """Always in one order: two jobs that name the same two must not wait for each other's rows."""
        found = [one for one in (self.training_file, self.validation_file) if isinstance(one, DatasetRevision)]
        return sorted(found, key=lambda revision: (revision.dataset_id, revision.number))


def find_references(
    session: Session, bases: dict[str, RegisteredBase], project_id: str, document: dict[str, object]
) -> References:
    """Fields that are no text are left to the check of the form."""
    field_errors: list[FieldError] = []
    base = _base(bases, document.get("model"), field_errors)
    training = _source(session, project_id, "training_file", document, field_errors)
    validation = _source(session, project_id, "validation_file", document, field_errors)
    return References(base, training, validation, tuple(field_errors))


def _base(bases: dict[str, RegisteredBase], name: object, field_errors: list[FieldError]) -> RegisteredBase | None:
    if not isinstance(name, str):
        return None
    try:
        return find_base(bases, name)
    except ModelNotFound as error:
        available = ", ".join(sorted(bases))
        field_errors.append(
            FieldError("model", f"model: {error} Available base models: {available}.", row_of(error).code)
        )
        return None


def _source(
    session: Session, project_id: str, param: str, document: dict[str, object], field_errors: list[FieldError]
) -> PairSource | None:
    given = document.get(param)
    if not isinstance(given, str):
        return None
    of_dataset = named(given)
    try:
        if of_dataset is not None:
            return _revision(session, project_id, param, of_dataset, field_errors)
        return _file(session, project_id, param, given, field_errors)
    except (FileNotFound, DatasetNotFound, RevisionNotFound) as error:
        dataset_id = of_dataset.dataset_id if of_dataset is not None else None
        message = message_of(error, {"dataset_id": dataset_id})
        field_errors.append(FieldError(param, f"{param}: {message}", row_of(error).code))
        return None


def _revision(
    session: Session, project_id: str, param: str, wanted: Named, field_errors: list[FieldError]
) -> DatasetRevision:
    """The requested revision, or the latest one."""
    dataset = datasets.get(session, project_id, wanted.dataset_id)
    revision = datasets.revision(session, dataset, wanted.revision)
    if revision.pairs_count == 0:
        name = revision_id(dataset.id, revision.number)
        message = f"{param}: {name} has no pairs; add some to the dataset, or name a revision that has."
        field_errors.append(FieldError(param, message, "dataset_empty"))
    return revision


def _file(session: Session, project_id: str, param: str, file_id: str, field_errors: list[FieldError]) -> File:
    file = files.get_for_job(session, project_id, file_id)
    if file.purpose != "fine-tune":
        message = f"{param}: {file.id} has purpose '{file.purpose}'; upload it with purpose 'fine-tune'."
        field_errors.append(FieldError(param, message, "invalid_file"))
    elif file.status == "error":
        field_errors.append(
            FieldError(param, f"{param}: {file.id} cannot be used: {file.status_details}", "invalid_file")
        )
    return file
