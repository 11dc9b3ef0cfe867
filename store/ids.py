"""Public identifiers: a prefix that names the kind, then a UUIDv7, so that they sort by creation."""

from __future__ import annotations

from typing import Literal

from uuid_utils import uuid7

Prefix = Literal[
    "proj",
    "key",
    "file",
    "upload",
    "part",
    "ds",
    "pair",
    "ftjob",
    "ftevent",
    "ftckpt",
    "imggen",
    "webhook",
    "delivery",
    "evt",
    "audit",
]


def new_id(prefix: Prefix) -> str:
    return f"{prefix}-{uuid7().hex}"
