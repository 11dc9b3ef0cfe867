"""What intake makes of an upload: pairs whose images are files named by their SHA-256."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from intake.findings import Finding
from intake.images.image_folder import StoredImage
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


class PairsFile:
    """Pairs as JSON lines, written one by one as they are found: what a job's run directory is made from."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.count = self.without_rejected = 0

    def add(self, pair: PreparedPair) -> None:
        self._file.write(json.dumps(vars(pair)).encode() + b"\n")
        self.count += 1
        self.without_rejected += pair.rejected is None

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class PreparedUpload:
    """The whole upload. ``pairs_file`` has ``count`` pairs, one JSON object a line; ``images`` maps SHA-256 to the
    normalised file in the work directory, ``measured`` to what was found of it."""

    pairs_file: Path
    count: int
    images: Mapping[str, Path]
    report: Report
    measured: Mapping[str, StoredImage] = field(default_factory=dict)

    @property
    def pairs(self) -> tuple[PreparedPair, ...]:
        """All of them at once: for small uploads and tests."""
        return tuple(self.read_pairs())

    def read_pairs(self) -> Iterator[PreparedPair]:
        with self.pairs_file.open("rb") as lines:
            for line in lines:
                yield PreparedPair(**json.loads(line))

    @property
    def format(self) -> str:
        return self.report.format

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.report.findings

    @property
    def usable(self) -> bool:
        """No error was found and there is something to train on."""
        return self.count > 0 and all(finding.severity != "error" for finding in self.findings)
