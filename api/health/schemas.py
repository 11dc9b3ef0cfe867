"""Answers of the health routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

State = Literal["ok", "no answer"]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ok"] = "ok"
    checks: dict[str, State]
