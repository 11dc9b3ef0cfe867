"""Errors of a part of an upload. Raised inside intake only; ``prepare`` turns each into a finding.

IntakeError
├── ArchiveError    the file as a whole, or the bytes of one entry
├── MetadataError   the metadata file as a whole
└── ImageError      one image
"""

from __future__ import annotations

from intake.findings import Code


class IntakeError(Exception):
    """Base: the finding's code, and what is wrong and what to do, as a predicate ("is empty; ...")."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code: Code = code
        self.reason = reason


class ArchiveError(IntakeError):
    """The archive, or one entry's bytes, cannot be read or exceeds a limit."""


class MetadataError(IntakeError):
    """There is no metadata file, more than one, or one that cannot be read at all."""


class ImageError(IntakeError):
    """An image is not one that training can use."""
