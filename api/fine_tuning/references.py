"""What a create request names: its base model and files, looked up even when its form is at fault."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.faults import Fault
from store import files
from store.bases import RegisteredBase, find_base
from store.errors import FileNotFound, ModelNotFound
from store.models import File


@dataclass(frozen=True)
class References:
    """None where the request names nothing usable; ``faults`` says why."""

    base: RegisteredBase | None
    training_file: File | None
    validation_file: File | None
    faults: tuple[Fault, ...]


def look_up(
    session: Session, bases: dict[str, RegisteredBase], project_id: str, document: dict[str, object]
) -> References:
    """Fields that are no text are left to the check of the form."""
    faults: list[Fault] = []
    base = _base(bases, document.get("model"), faults)
    training = _file(session, project_id, "training_file", document, faults)
    validation = _file(session, project_id, "validation_file", document, faults)
    return References(base, training, validation, tuple(faults))


def _base(bases: dict[str, RegisteredBase], name: object, faults: list[Fault]) -> RegisteredBase | None:
    if not isinstance(name, str):
        return None
    try:
        return find_base(bases, name)
    except ModelNotFound as error:
        known = ", ".join(sorted(bases))
        faults.append(Fault("model", f"model: {error} Base models here: {known}.", "model_not_found"))
        return None


def _file(
    session: Session, project_id: str, param: str, document: dict[str, object], faults: list[Fault]
) -> File | None:
    file_id = document.get(param)
    if not isinstance(file_id, str):
        return None
    try:
        file = files.get_for_job(session, project_id, file_id)
    except FileNotFound as error:
        faults.append(Fault(param, f"{param}: {error}", "file_not_found"))
        return None
    if file.purpose != "fine-tune":
        message = f"{param}: {file.id} has purpose '{file.purpose}'; upload it with purpose 'fine-tune'."
        faults.append(Fault(param, message, "invalid_file"))
    elif file.status == "error":
        faults.append(Fault(param, f"{param}: {file.id} cannot be used: {file.status_details}", "invalid_file"))
    return file
