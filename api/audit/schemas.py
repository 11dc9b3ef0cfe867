"""What admins see of the audit log."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors.example_ids import CREATED, WEBHOOK
from api.http.paging import PageWithEnds, page_of
from store.tables import audit

ENTRY: JsonDict = {
    "id": "audit-0198c1f2b0037c5d8e6f708192a3b4c5",
    "object": "audit.entry",
    "created_at": CREATED,
    "action": "webhook.deleted",
    "subject": WEBHOOK,
    "key_id": "key-0198c1f2b0037c5d8e6f708192a3b4c6",
    "address": "192.0.2.7",
    "details": {},
}


class AuditEntry(BaseModel):
    model_config = ConfigDict(title="AuditEntry", json_schema_extra={"example": ENTRY})

    id: str
    object: Literal["audit.entry"] = "audit.entry"
    created_at: int = Field(description="Unix seconds.")
    action: str
    subject: str = Field(description="The id of what the action was done to.")
    key_id: str | None = Field(description="The key that acted; null for an operator at the command line.")
    address: str | None = Field(description="The client's address; of a first use, an IPv6 address's /64 network.")
    details: dict[str, Any]

    @classmethod
    def of(cls, row: audit.AuditEntry) -> Self:
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            action=row.action,
            subject=row.subject,
            key_id=row.key_id,
            address=row.address,
            details=row.details,
        )


class AuditEntryList(PageWithEnds[AuditEntry]):
    model_config = ConfigDict(json_schema_extra=page_of(ENTRY, ends=True))
