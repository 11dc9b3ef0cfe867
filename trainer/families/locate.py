"""Where a base model's files are: a folder in diffusers' layout, downloaded or converted first where needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.families.hub import Progress, download, no_progress, not_found
from trainer.spec.run import Base


def locate(base: Base, components: Sequence[str], *, half: bool, progress: Progress = no_progress) -> Path:
    """The base's folder: a local directory as it is, or the hub's files of ``components`` at a pinned revision.

    Raises BadRun for one that is not there or not for us, BaseUnavailable when the hub does not answer or send it.
    """
    if Path(base.source).is_dir():
        return Path(base.source)
    if base.revision is None:
        raise not_found(repr(base.source), "a directory with a diffusers model, or a hub id with base.revision")
    return download(base.source, base.revision, components, half=half, progress=progress)
