"""What clients see of a model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds; 0 for a base model, which was not made here.")
    owned_by: str = Field(description="`system` for a base model, the project's id for a fine-tuned one.")


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
