"""The codes of findings, and the advice for each; ``docs/reference/findings.md`` says more of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from intake.policy import Policy

Severity = Literal["error", "warning"]

Code = Literal[
    "upload_damaged",
    "intake_crashed",
    "intake_memory",
    "intake_time",
    "storage_quota",
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
    "image_unused",
    "caption_conflict",
    "pairs_held_out",
    "prompt_truncated",
    "prompt_leaked",
    "image_leaked",
    "rejected_missing",
    "pairs_none",
    "findings_omitted",
]

ADVICE: Mapping[Code, str] = {
    "upload_damaged": "Upload the file again.",
    "intake_crashed": (
        "Upload the file again in smaller parts. If that fails too, ask the operator: the log of the intake worker "
        "has the reason."
    ),
    "intake_memory": "Upload the file in smaller parts, or ask the operator to raise the memory limit of intake.",
    "intake_time": "Upload the file in smaller parts, or with smaller images.",
    "storage_quota": "Delete files and datasets that are not needed, or upload fewer or smaller images.",
    "archive_unreadable": "Pack the folder again, without a password, and upload the whole file.",
    "archive_limits": "Upload the pairs in several parts, and unpack archives that are inside the archive.",
    "archive_path": "Rename the file and pack the folder again.",
    "archive_entry_type": "Replace the link by the file itself; tar does this with --dereference --hard-dereference.",
    "metadata_missing": (
        "Add metadata.jsonl or metadata.csv at the top of the archive or in one folder there, or captions to "
        "images without pairs."
    ),
    "metadata_ambiguous": "Keep one table, or name the one to read metadata.",
    "metadata_unreadable": "Save the table again in UTF-8, or upload the pairs in several parts.",
    "metadata_empty": "Add one row per pair.",
    "metadata_columns": (
        "Name prompt, chosen and, where there is one, rejected in the first line, each column once; or use "
        "the columns of another supported format."
    ),
    "column_unknown": "Correct the name of the column if it is misspelt; otherwise ignore this.",
    "row_invalid": "Correct the row.",
    "label_missing": "Have the pair judged, or remove the row.",
    "pair_tied": "Choose one of the images, remove the row, or upload with another policy for ties.",
    "prompt_empty": "Write the prompt, or remove the row.",
    "prompt_too_long": "Shorten the prompt; text encoders read a few hundred words at most.",
    "image_missing": "Add the file, or correct the path; upper and lower case count.",
    "image_unreadable": "Save the image again from the original.",
    "image_truncated": "Copy the whole file again.",
    "image_format": "Convert the image to PNG, JPEG or WebP.",
    "image_too_large": "Scale the image down.",
    "image_animated": "Save the frame you want as one image.",
    "image_profile": "Check the image's colours, and save it in sRGB if they are wrong.",
    "pair_identical": "Correct one of the paths, or remove the row.",
    "pair_near_identical": "Remove the row, unless the model should learn this small difference.",
    "pair_repeated": "Remove one of the rows.",
    "pair_contradicted": "Keep one of the judgements, or neither.",
    "image_sizes_differ": (
        "Use images of similar shape and size, or check that cropping and scaling lose nothing important."
    ),
    "image_small": "Use the original images.",
    "image_unused": "Rename the images if they should be trained on; otherwise ignore this.",
    "caption_conflict": "Keep one caption for each image.",
    "pairs_held_out": "Add pairs to train on, or rename the folder if its pairs should not be held out.",
    "prompt_truncated": "Put the important words first.",
    "prompt_leaked": "Keep each prompt in one split.",
    "image_leaked": "Keep each image in one split.",
    "rejected_missing": "If you have rejected images, name their column rejected; otherwise ignore this.",
    "pairs_none": "Correct the other findings, or the rows that the report counts as dropped.",
    "findings_omitted": "Correct the listed findings, and upload again.",
}

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

    @property
    def advice(self) -> str:
        """What to do about it, whatever the file and row."""
        return ADVICE[self.code]


class FindingList:
    """Collects findings; one that only repeats another in a further row is told with it.

    Those of the archive and of its table come first, because they explain the others. ``limit`` of them are listed,
    besides the first of each code, and the rest is counted. Their severity is what the policy makes of it.
    """

    def __init__(self, limit: int, policy: Policy) -> None:
        self._limit = limit
        self._policy = policy
        self._listed: dict[_Fault, Finding] = {}
        self._again: dict[_Fault, _Rows] = {}
        self._codes: set[tuple[Code, bool]] = set()
        self._omitted: dict[Severity, int] = {"error": 0, "warning": 0}

    def add(self, finding: Finding) -> None:
        finding = replace(finding, severity=self._severity(finding))
        fault = _fault(finding, len(self._listed))
        kind = finding.code, finding.row is None
        if fault in self._listed:
            self._again.setdefault(fault, _Rows()).add(finding.row or 0)
        elif len(self._listed) < self._limit or kind not in self._codes:
            self._listed[fault] = finding
            self._codes.add(kind)
        else:
            self._omitted[finding.severity] += 1

    def extend(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    @property
    def errors(self) -> bool:
        return self._omitted["error"] > 0 or any(finding.severity == "error" for finding in self._listed.values())

    def _severity(self, finding: Finding) -> Severity:
        if self._policy.strict:
            return "error"
        if self._policy.invalid_rows == "drop" and finding.row is not None and not _beyond_a_row(finding.code):
            return "warning"
        return finding.severity

    def __iter__(self) -> Iterator[Finding]:
        """What is listed, then one finding that counts the rest."""
        for fault, finding in sorted(self._listed.items(), key=lambda one: not _explains(one[1])):
            again = self._again.get(fault)
            yield finding if again is None else replace(finding, message=f"{finding.message} The same in {again}.")
        errors, warnings = self._omitted["error"], self._omitted["warning"]
        if errors or warnings:
            more = f"{counted(errors, 'more error')} and {counted(warnings, 'more warning')}"
            text = f"Not listed: {more}; correct the ones above first."
            yield Finding("findings_omitted", "error" if errors else "warning", text)


# What makes two findings of one fault: code, severity and the message but for the row.
_Fault = tuple[Code, Severity, str]
# Codes whose message without its row is the fault. Others tell of one pair or image each.
_REPEATED: frozenset[Code] = frozenset(
    {
        "row_invalid",
        "metadata_columns",
        "label_missing",
        "prompt_empty",
        "prompt_too_long",
        "image_missing",
        "image_too_large",
    }
)


def _fault(finding: Finding, number: int) -> _Fault:
    if finding.row is None or finding.code not in _REPEATED:
        return finding.code, finding.severity, str(number) + finding.message
    text = finding.message.replace(f" row {finding.row}:", "", 1).replace(f" line {finding.row} ", " ", 1)
    return finding.code, finding.severity, text


def _explains(finding: Finding) -> bool:
    return finding.row is None and finding.code.startswith(("archive_", "metadata_", "column_", "image_missing"))


class _Rows:
    """Rows as ranges, of which the first few are shown."""

    SHOWN = 10

    def __init__(self) -> None:
        self._count = 0
        self._ranges: list[list[int]] = []

    def add(self, row: int) -> None:
        self._count += 1
        if self._ranges and self._ranges[-1][1] + 1 == row:
            self._ranges[-1][1] = row
        elif len(self._ranges) <= self.SHOWN:
            self._ranges.append([row, row])

    def __str__(self) -> str:
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in self._ranges[: self.SHOWN]]
        more = ", ..." if len(self._ranges) > self.SHOWN else ""
        rows = "1 more row" if self._count == 1 else f"{self._count:,} more rows"
        return f"{rows} ({', '.join(shown)}{more})"


def counted(count: int, noun: str) -> str:
    """E.g. ``1 pair``, ``2 pairs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _beyond_a_row(code: Code) -> bool:
    """What a row showed of the archive or its table as a whole, and ties, which have a policy of their own."""
    return code.startswith(("archive_", "metadata_")) or code == "pair_tied"


def printable(text: str) -> str:
    """The text on one line, cut to a readable length, without control characters and unpaired surrogates.

    Findings end up in JSON, in PostgreSQL (which stores no NUL) and on terminals.
    """
    short = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in short)
