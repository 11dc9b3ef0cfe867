"""Answers of the health routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

State = Literal["ok", "no answer", "low", "outdated"]


CHECKS: JsonDict = {"database": "ok", "broker": "no answer", "blobs": "ok", "disk": "ok"}


class Alive(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"status": "degraded", "checks": CHECKS}})

    status: Literal["ok", "degraded"] = Field(
        description="degraded: requests are answered, but jobs start late (broker) or nothing new is taken (disk)."
    )
    checks: dict[str, State]
