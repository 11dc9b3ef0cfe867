"""``pairtune models``: what can be trained, and the operator's list of bases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tomlkit
import typer
from tomlkit.exceptions import TOMLKitError

from cli.client.server import JsonObject, connected
from cli.command_options import AsJson, reports_errors
from cli.configured import settings
from cli.errors import CommandError
from cli.output import answer, moment, print_json, print_table
from store.base_models import read_bases
from store.errors import BasesInvalid
from store.settings import REPOSITORY, SHIPPED_BASES
from trainer.spec.family_facts import FAMILIES
from trainer.spec.method_facts import listed

models_app = typer.Typer(no_args_is_help=True, help="Base models and fine-tuned ones.")
Name = Annotated[str, typer.Argument(help="The base's name.")]


@models_app.command("list")
@reports_errors
def list_models(as_json: AsJson = False) -> None:
    """What jobs may name: the operator's bases and this project's fine-tuned models."""
    with connected(settings()) as server:
        data = list(server.every("/v1/models"))
    if as_json:
        print_json(data)
    else:
        print_table(
            ("model", "owner", "created"),
            [(one["id"], one["owned_by"], moment(one["created"]) if one["created"] else "") for one in data],
        )


@models_app.command()
@reports_errors
def add(
    name: Name,
    family: Annotated[str, typer.Option(help=f"{listed(FAMILIES)}.")],
    source: Annotated[str, typer.Option(help="A directory with a diffusers pipeline in safetensors, or a hub id.")],
    revision: Annotated[str | None, typer.Option(help="A hub id's commit hash.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a base into the operator's list; a running API takes it up when it is started again."""
    path = _own_list()
    document = _read(path)
    entry = tomlkit.table()
    for key, value in (("name", name), ("family", family), ("source", source), ("revision", revision)):
        if value is not None:
            entry[key] = value
    document.setdefault("base", tomlkit.aot()).append(entry)
    _write(path, document)
    answer(_listed(path, entry.unwrap()), f"{name} is in {path}. Restart the API and the workers to use it.", as_json)


@models_app.command()
@reports_errors
def remove(name: Name, as_json: AsJson = False) -> None:
    """Take a base out of the operator's list; jobs that name it already keep it."""
    path = _own_list()
    document = _read(path)
    entries = document.get("base", [])
    positions = [position for position, entry in enumerate(entries) if entry.get("name") == name]
    if not positions:
        raise CommandError(f"{path} has no base {name}.")
    removed = entries[positions[0]].unwrap()
    for position in reversed(positions):
        del entries[position]
    _write(path, document)
    answer(_listed(path, removed), f"{name} is no longer in {path}. Restart the API and the workers.", as_json)


def _own_list() -> Path:
    """The list to edit. Raises CommandError for the one in an installed package: an update would undo the change."""
    path = settings().bases_file
    if path == SHIPPED_BASES and not (REPOSITORY / "pyproject.toml").exists():
        raise CommandError(f"{path} belongs to the installed package: set PAIRTUNE_BASES_FILE to a list of your own.")
    return path


def _listed(path: Path, entry: JsonObject) -> JsonObject:
    return {"bases_file": str(path), "base": entry}


def _read(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except (OSError, TOMLKitError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error


def _write(path: Path, document: tomlkit.TOMLDocument) -> None:
    """Checked as the API will read it, before it takes the list's place. Comments stay."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(tomlkit.dumps(document), encoding="utf-8")
    try:
        read_bases(partial)
    except BasesInvalid as error:
        partial.unlink()
        raise CommandError(str(error)) from error
    os.replace(partial, path)
