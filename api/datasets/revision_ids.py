"""``ds-...@3``: the name of a revision, in lists and wherever a job names its data."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"(ds-[^@]*)(?:@([0-9]{1,19}))?")


@dataclass(frozen=True)
class Named:
    """``revision`` is None for the latest one."""

    dataset_id: str
    revision: int | None


def revision_id(dataset_id: str, number: int) -> str:
    return f"{dataset_id}@{number}"


def named(text: str) -> Named | None:
    """What the text names, or None when it is no dataset's name."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    return Named(match[1], int(match[2]) if match[2] else None)
