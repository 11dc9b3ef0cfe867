"""The base class and the strict field types of every spec model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# What a client writes as true or "100" is a mistake: a run of one step is no answer to it.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Auto = Literal["auto"]
Seed = Annotated[Whole, Field(ge=0, le=2**31 - 1)]


class Strict(BaseModel):
    """Base of every spec model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
