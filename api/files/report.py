"""The report of a file, as the API shows it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from intake import Report, Severity


class FileFinding(BaseModel):
    code: str = Field(description="docs/reference/findings.md has the advice on each.")
    severity: Severity
    message: str
    file: str | None
    row: int | None
    advice: str = Field(description="What to do about a finding of this code.")


EXAMPLE: JsonDict = {
    "object": "file.report",
    "format": "archive with metadata.jsonl",
    "rows": 241,
    "kept": 240,
    "dropped": {"tie": 1},
    "figures": {
        "pairs": 240,
        "prompts": 120,
        "images": 478,
        "splits": {"unassigned": 240},
        "sizes": {"1024x1024": 480},
        "repeated": 2,
        "buckets": {"sdxl": {"1024x1024": 240}},
    },
    "findings": [
        {
            "code": "tie",
            "severity": "warning",
            "message": "neither image is preferred",
            "file": "metadata.jsonl",
            "row": 17,
            "advice": "leave the row out, or decide what ties are worth with the field `ties`.",
        }
    ],
    "ties": "drop",
    "tied": 1,
    "left_out": {"unnamed": 3, "generated": 1},
}
WORDS = """\
archive with metadata.jsonl: 241 rows read, 240 pairs kept.
120 different prompts, 478 different images.
Images by size: 480 of 1024x1024.
"""


class FileReport(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    object: Literal["file.report"] = "file.report"
    format: str = Field(description="What the upload was recognised as.")
    rows: int
    kept: int = Field(description="Pairs made of them; a tie that is used in both orders makes two.")
    dropped: dict[str, int] = Field(description="The other rows, by the code of their first finding.")
    figures: dict[str, Any] = Field(description="Prompts, images, sizes, splits, repetitions, agreement of annotators.")
    findings: list[FileFinding]
    ties: str = Field(description="What was done with ties: `drop`, `both` or `error`.")
    tied: int = Field(description="Rows that preferred neither image.")
    left_out: dict[str, int] = Field(
        default_factory=dict, description="The archive's files that are in no pair, by the reason."
    )

    @classmethod
    def of(cls, report: Report) -> Self:
        return cls.model_validate(report.as_json())
