"""The report of a file, as the API shows it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from intake import Report, Severity


class FileFinding(BaseModel):
    code: str = Field(description="docs/data.md has the cure of each.")
    severity: Severity
    message: str
    file: str | None
    row: int | None
    advice: str = Field(description="What to do about a finding of this code.")


class FileReport(BaseModel):
    object: Literal["file.report"] = "file.report"
    format: str = Field(description="What the upload was recognised as.")
    rows: int
    kept: int = Field(description="Pairs made of them; a tie that is kept in both orders makes two.")
    dropped: dict[str, int] = Field(description="The other rows, by the code of their first finding.")
    figures: dict[str, Any] = Field(description="Prompts, images, sizes, splits, repetitions, agreement of annotators.")
    findings: list[FileFinding]
    ties: str = Field(description="What was done with ties: `drop`, `both` or `error`.")
    tied: int = Field(description="Rows that preferred neither image.")

    @classmethod
    def of(cls, report: Report) -> Self:
        return cls.model_validate(report.as_json())
