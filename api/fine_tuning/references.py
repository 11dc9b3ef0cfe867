"""What a create request names: its base model, files and data sets, looked up even when its form is at fault."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.datasets.revision_ids import Named, named, revision_id
from api.errors.request_faults import Fault
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
    """None where the request names nothing usable; ``faults`` says why."""

    base: RegisteredBase | None
    training_file: PairSource | None
    validation_file: PairSource | None
    faults: tuple[Fault, ...]

    @property
    def revisions(self) -> list[DatasetRevision]:
        """Always in one order: two jobs that name the same two must not wait for each other's rows."""
        found = [one for one in (self.training_file, self.validation_file) if isinstance(one, DatasetRevision)]
        return sorted(found, key=lambda revision: (revision.dataset_id, revision.number))


def look_up(
    session: Session, bases: dict[str, RegisteredBase], project_id: str, document: dict[str, object]
) -> References:
    """Fields that are no text are left to the check of the form."""
    faults: list[Fault] = []
    base = _base(bases, document.get("model"), faults)
    training = _source(session, project_id, "training_file", document, faults)
    validation = _source(session, project_id, "validation_file", document, faults)
    return References(base, training, validation, tuple(faults))


def _base(bases: dict[str, RegisteredBase], name: object, faults: list[Fault]) -> RegisteredBase | None:
    if not isinstance(name, str):
        return None
    try:
        return find_base(bases, name)
    except ModelNotFound as error:
        known = ", ".join(sorted(bases))
        faults.append(Fault("model", f"model: {error} Base models here: {known}.", row_of(error).code))
        return None


def _source(
    session: Session, project_id: str, param: str, document: dict[str, object], faults: list[Fault]
) -> PairSource | None:
    given = document.get(param)
    if not isinstance(given, str):
        return None
    of_dataset = named(given)
    try:
        if of_dataset is not None:
            return _revision(session, project_id, param, of_dataset, faults)
        return _file(session, project_id, param, given, faults)
    except (FileNotFound, DatasetNotFound, RevisionNotFound) as error:
        dataset_id = of_dataset.dataset_id if of_dataset is not None else None
        message = message_of(error, {"dataset_id": dataset_id})
        faults.append(Fault(param, f"{param}: {message}", row_of(error).code))
        return None


def _revision(session: Session, project_id: str, param: str, wanted: Named, faults: list[Fault]) -> DatasetRevision:
    """The revision asked for, or the latest one."""
    dataset = datasets.get(session, project_id, wanted.dataset_id)
    revision = datasets.revision(session, dataset, wanted.revision)
    if revision.pairs_count == 0:
        name = revision_id(dataset.id, revision.number)
        message = f"{param}: {name} has no pairs; add some to the data set, or name a revision that has."
        faults.append(Fault(param, message, "dataset_empty"))
    return revision


def _file(session: Session, project_id: str, param: str, file_id: str, faults: list[Fault]) -> File:
    file = files.get_for_job(session, project_id, file_id)
    if file.purpose != "fine-tune":
        message = f"{param}: {file.id} has purpose '{file.purpose}'; upload it with purpose 'fine-tune'."
        faults.append(Fault(param, message, "invalid_file"))
    elif file.status == "error":
        faults.append(Fault(param, f"{param}: {file.id} cannot be used: {file.status_details}", "invalid_file"))
    return file
