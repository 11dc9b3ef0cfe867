"""What intake makes of an upload: pairs whose images are files named by their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from intake.findings import Finding
from intake.report import Report

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class PreparedPair:
    """One usable pair; ``chosen`` and ``rejected`` are the SHA-256 (hex) of the normalised files.

    A pair that came without a rejected image gets it in training, from the base model.
    """

    row: int
    prompt: str
    chosen: str
    rejected: str | None
    split: Split | None = None
    weight: float | None = None
    annotator: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Prepared:
    """The whole upload. ``images`` maps SHA-256 to the normalised file in the work directory."""

    pairs: tuple[PreparedPair, ...]
    images: Mapping[str, Path]
    report: Report

    @property
    def format(self) -> str:
        return self.report.format

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.report.findings

    @property
    def usable(self) -> bool:
        """No error was found and there is something to train on."""
        return bool(self.pairs) and all(finding.severity != "error" for finding in self.findings)
