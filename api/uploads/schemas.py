"""What clients see of an upload: OpenAI's Upload and UploadPart objects, and the parts' sizes and SHA-256."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors.example_ids import CREATED, PART, SHA256, UPLOAD
from api.files.schemas import File
from api.http.paging import PageWithEnds, page_of
from store.tables import upload
from store.tables.file import File as FileRow

BEGUN: JsonDict = {
    "id": UPLOAD,
    "object": "upload",
    "bytes": 62113764,
    "created_at": CREATED,
    "expires_at": CREATED + 86400,
    "filename": "pairs.zip",
    "purpose": "fine-tune",
    "status": "pending",
    "file": None,
}
ARRIVED: JsonDict = {
    "id": PART,
    "object": "upload.part",
    "upload_id": UPLOAD,
    "created_at": CREATED + 2,
    "bytes": 62113764,
    "sha256": SHA256,
}


class Upload(BaseModel):
    model_config = ConfigDict(title="Upload", json_schema_extra={"example": BEGUN})

    id: str
    object: Literal["upload"] = "upload"
    bytes: int = Field(description="The whole file's size, as declared.")
    created_at: int = Field(description="Unix seconds.")
    expires_at: int = Field(description="Unix seconds; an upload that is not completed by then is dropped.")
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: File | None = Field(None, description="For `completed`: what the parts became, unless it was deleted.")

    @classmethod
    def of(cls, row: upload.Upload, file: FileRow | None = None) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "bytes": row.bytes,
                "created_at": int(row.created_at.timestamp()),
                "expires_at": int(row.expires_at.timestamp()),
                "filename": row.filename,
                "purpose": row.purpose,
                "status": row.status,
                "file": File.of(file) if file is not None else None,
            }
        )


class UploadPart(BaseModel):
    model_config = ConfigDict(title="UploadPart", json_schema_extra={"example": ARRIVED})

    id: str
    object: Literal["upload.part"] = "upload.part"
    upload_id: str
    created_at: int = Field(description="Unix seconds.")
    bytes: int
    sha256: str

    @classmethod
    def of(cls, row: upload.UploadPart) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "upload_id": row.upload_id,
                "created_at": int(row.created_at.timestamp()),
                "bytes": row.bytes,
                "sha256": row.sha256,
            }
        )


class UploadPartList(PageWithEnds[UploadPart]):
    model_config = ConfigDict(json_schema_extra=page_of(ARRIVED, ends=True))
