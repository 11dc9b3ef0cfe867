"""What clients see of a model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors.example_ids import BASE, CREATED, MODEL, PROJECT
from api.http.paging import Page

TUNED: JsonDict = {"id": MODEL, "object": "model", "created": CREATED + 300, "owned_by": PROJECT}
BASIC: JsonDict = {"id": BASE, "object": "model", "created": 0, "owned_by": "system"}


class Model(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": TUNED})

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds; 0 for a base model, which was not made here.")
    owned_by: str = Field(description="`system` for a base model, the project's id for a fine-tuned one.")


class ModelDeleted(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"id": MODEL, "object": "model", "deleted": True}})

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class ModelList(Page[Model]):
    model_config = ConfigDict(
        json_schema_extra={"example": {"object": "list", "data": [BASIC, TUNED], "has_more": False}}
    )
