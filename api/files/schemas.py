"""What clients see of a file: OpenAI's File object, and the content's SHA-256."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors.example_ids import CREATED, FILE, SHA256
from api.http.paging import PageWithEnds, page_of
from store.tables.file import File as FileRow

EXAMPLE: JsonDict = {
    "id": FILE,
    "object": "file",
    "bytes": 62113764,
    "created_at": CREATED,
    "filename": "pairs.zip",
    "purpose": "fine-tune",
    "status": "processed",
    "status_details": None,
    "expires_at": None,
    "sha256": SHA256,
    "progress": None,
}


class FileProgress(BaseModel):
    format: str = Field(description="What the upload was recognised as.")
    rows: int = Field(description="Rows read so far.")
    kept: int = Field(description="Pairs made of them.")
    total: int | None = Field(description="Rows in all, where the format states them.")
    stored: int = Field(0, description="Images stored so far, once all rows are read.")
    images: int | None = Field(None, description="Images to store, once all rows are read.")


class File(BaseModel):
    model_config = ConfigDict(title="File", json_schema_extra={"example": EXAMPLE})

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Unix seconds.")
    filename: str
    purpose: str = Field(description="`fine-tune` for uploads, `fine-tune-results` for what a job produced.")
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = Field(description="For `error`: what is wrong, with file and row.")
    expires_at: int | None = None
    sha256: str
    progress: FileProgress | None = Field(None, description="While it is read, a few seconds old.")

    @classmethod
    def of(cls, row: FileRow) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "bytes": row.bytes,
                "created_at": int(row.created_at.timestamp()),
                "filename": row.filename,
                "purpose": row.purpose,
                "status": row.status,
                "status_details": row.status_details,
                "sha256": row.sha256,
                "progress": row.progress,
            }
        )


class FileList(PageWithEnds[File]):
    model_config = ConfigDict(json_schema_extra=page_of(EXAMPLE, ends=True))


class FileDeleted(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"id": FILE, "object": "file", "deleted": True}})

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
