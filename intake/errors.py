"""Why a part of an upload was refused. Raised inside intake only; ``prepare`` turns each into a finding.

Refused
├── ArchiveRefused    the file as a whole, or the bytes of one entry
├── MetadataRefused   the metadata file as a whole
└── ImageRefused      one image
"""

from __future__ import annotations

from intake.findings import Code


class Refused(Exception):
    """Base: the finding's code, and what is wrong and what to do, as a predicate ("is empty; ...")."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code: Code = code
        self.reason = reason


class ArchiveRefused(Refused):
    """The archive, or one entry's bytes, cannot be read or exceeds a limit."""


class MetadataRefused(Refused):
    """There is no metadata file, more than one, or one that cannot be read at all."""


class ImageRefused(Refused):
    """An image is not one that training can use."""
