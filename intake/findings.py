"""The vocabulary of what can be wrong with an upload. ``docs/data.md`` has the cure for each code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from intake.policy import Policy

Severity = Literal["error", "warning"]

Code = Literal[
    "archive_unreadable",
    "archive_limits",
    "archive_path",
    "archive_entry_type",
    "metadata_missing",
    "metadata_ambiguous",
    "metadata_unreadable",
    "metadata_empty",
    "metadata_columns",
    "column_unknown",
    "row_invalid",
    "label_missing",
    "pair_tied",
    "prompt_empty",
    "prompt_too_long",
    "image_missing",
    "image_unreadable",
    "image_truncated",
    "image_format",
    "image_too_large",
    "image_animated",
    "image_profile",
    "pair_identical",
    "pair_near_identical",
    "pair_repeated",
    "pair_contradicted",
    "image_sizes_differ",
    "image_small",
    "prompt_truncated",
    "prompt_leaked",
    "rejected_missing",
    "pairs_none",
    "findings_omitted",
]

SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Finding:
    """Something wrong with what was uploaded. An error makes the upload unusable, a warning does not.

    ``message`` names file and row and says what to do. ``row`` counts from 1: the line of a JSONL file, the data row
    (header not counted) of a CSV or parquet file, the place in a JSON list or among a folder's sorted images. Texts
    are printable, whatever the upload held.
    """

    code: Code
    severity: Severity
    message: str
    file: str | None = None
    row: int | None = None


class FindingList:
    """Collects findings in the order they were made; keeps the first ``limit`` and counts the rest.

    Their severity is what the policy makes of it.
    """

    def __init__(self, limit: int, policy: Policy) -> None:
        self._limit = limit
        self._policy = policy
        self._kept: list[Finding] = []
        self._omitted: dict[Severity, int] = {"error": 0, "warning": 0}

    def add(self, finding: Finding) -> None:
        finding = replace(finding, severity=self._severity(finding))
        if len(self._kept) < self._limit:
            self._kept.append(finding)
        else:
            self._omitted[finding.severity] += 1

    def extend(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    @property
    def errors(self) -> bool:
        return self._omitted["error"] > 0 or any(finding.severity == "error" for finding in self._kept)

    def _severity(self, finding: Finding) -> Severity:
        if self._policy.strict:
            return "error"
        if self._policy.invalid_rows == "drop" and finding.row is not None and not _beyond_a_row(finding.code):
            return "warning"
        return finding.severity

    def __iter__(self) -> Iterator[Finding]:
        """What was kept, then one finding that counts the rest."""
        yield from self._kept
        errors, warnings = self._omitted["error"], self._omitted["warning"]
        if errors or warnings:
            text = f"{errors} more errors and {warnings} more warnings are not listed; correct the ones above first."
            yield Finding("findings_omitted", "error" if errors else "warning", text)


def _beyond_a_row(code: Code) -> bool:
    """What a row showed of the archive itself, and ties, which have a policy of their own."""
    return code.startswith("archive_") or code == "pair_tied"


def printable(text: str) -> str:
    """The text on one line, cut to a readable length, without control characters and unpaired surrogates.

    Findings end up in JSON, in PostgreSQL (which stores no NUL) and on terminals.
    """
    short = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in short)
