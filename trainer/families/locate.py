"""Where a base model's files are: a folder in diffusers' layout, downloaded or converted first where needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.families.hub import Progress, download, download_file, no_progress, not_found
from trainer.families.single_file import converted
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.run import SINGLE_FILE, Base


def locate(base: Base, components: Sequence[str], *, half: bool, progress: Progress = no_progress) -> Path:
    """The base's folder: a local directory as it is, or the hub's files of ``components`` at a pinned revision.

    A single file, local or in a repository of the hub (``owner/name/file.safetensors``), is converted.

    Raises BadRun for one that is not there or not for us, BaseUnavailable when the hub does not answer or send it.
    """
    if Path(base.source).is_dir():
        return Path(base.source)
    if base.source.endswith(SINGLE_FILE):
        return converted(_single_file(base, progress), _configuration(base), base.family)
    if base.revision is None:
        raise not_found(repr(base.source), "a directory with a diffusers model, or a hub id with base.revision")
    return download(base.source, base.revision, components, half=half, progress=progress)


def _single_file(base: Base, progress: Progress) -> Path:
    if Path(base.source).is_file():
        return Path(base.source)
    owner, _, rest = base.source.partition("/")
    name, _, file = rest.partition("/")
    if base.revision is None or not owner or not file:
        raise not_found(repr(base.source), "a safetensors file, or owner/name/file.safetensors with base.revision")
    return download_file(f"{owner}/{name}", file, base.revision, progress)


def _configuration(base: Base) -> Path | None:
    if base.config is None:
        return None
    if not (Path(base.config) / "model_index.json").is_file():
        allowed = "a directory in diffusers' layout: model_index.json, configurations and tokenizers, no weights needed"
        raise BadRun([RunFieldError("base.config", repr(base.config), allowed)], code="base_not_found")
    return Path(base.config)
