"""The operator's list of base models, a TOML file: jobs may name these and nothing else."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from store.errors import BasesInvalid, ModelNotFound
from store.gpu_classes import MAX_MEMORY
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import SINGLE_FILE


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    family: FamilyName
    source: str
    revision: str | None = None
    config: str | None = None
    memory_gib: int | None = Field(None, ge=1, le=MAX_MEMORY)


@dataclass(frozen=True)
class RegisteredBase:
    """``source`` is an absolute directory, or a hub id that ``revision`` pins, or one safetensors file of either, for
    which ``config`` is a directory with the configurations; ``memory_gib`` the device memory that a worker needs for a
    job on it, None for none in particular."""

    name: str
    family: FamilyName
    source: str
    revision: str | None
    memory_gib: int | None = None
    config: str | None = None

    def pinned(self) -> dict[str, str | None]:
        """As the trainer's spec names it; an earlier trainer knows no ``config``."""
        pinned = {"name": self.name, "family": self.family, "source": self.source, "revision": self.revision}
        return pinned if self.config is None else pinned | {"config": self.config}


def read_bases(path: Path) -> dict[str, RegisteredBase]:
    """By name. A relative ``source`` is taken from the file's own folder."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = [_Entry.model_validate(entry) for entry in document["base"]]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, ValidationError) as error:
        raise BasesInvalid(str(path), str(error)) from error
    twice = [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]
    if twice:
        raise BasesInvalid(str(path), f"named twice: {', '.join(twice)}")
    return {entry.name: _register(entry, path) for entry in entries}


def find_base(bases: dict[str, RegisteredBase], name: str) -> RegisteredBase:
    if name not in bases:
        raise ModelNotFound(name)
    return bases[name]


def _register(entry: _Entry, path: Path) -> RegisteredBase:
    local, single = (path.parent / entry.source).resolve(), entry.source.endswith(SINGLE_FILE)
    config = _configuration(entry, path, single=single)
    if local.is_dir() or (single and local.is_file()):
        return RegisteredBase(entry.name, entry.family, str(local), entry.revision, entry.memory_gib, config)
    if entry.source.startswith((".", "/")):
        raise BasesInvalid(str(path), f"{entry.name}: there is no {'file' if single else 'directory'} {local}")
    if single and entry.source.count("/") < 2:
        raise BasesInvalid(str(path), f"{entry.name}: a file of the hub is named owner/name/file{SINGLE_FILE}")
    if entry.revision is None:
        raise BasesInvalid(str(path), f"{entry.name}: a hub model needs a revision (a commit hash)")
    return RegisteredBase(entry.name, entry.family, entry.source, entry.revision, entry.memory_gib, config)


def _configuration(entry: _Entry, path: Path, *, single: bool) -> str | None:
    if entry.config is None:
        return None
    local = (path.parent / entry.config).resolve()
    if not single:
        raise BasesInvalid(str(path), f"{entry.name}: config is for a source that is one {SINGLE_FILE} file")
    if not local.is_dir():
        raise BasesInvalid(str(path), f"{entry.name}: there is no directory {local} (config)")
    return str(local)
