"""Answers of the health routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

State = Literal["ok", "no answer", "low"]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ok", "degraded"] = Field(
        description="degraded: requests are answered, but jobs start late (broker) or nothing new is taken (disk)."
    )
    checks: dict[str, State]
