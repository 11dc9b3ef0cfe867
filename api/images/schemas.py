"""What clients see of generated images: OpenAI's ImagesResponse, and a generation that is read later."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.errors.example_ids import GENERATION

EXAMPLE_IMAGE: JsonDict = {
    "b64_json": None,
    "url": f"http://127.0.0.1:8000/v1/images/generations/{GENERATION}/images/0",
    "seed": 7,
}
CHOSEN: JsonDict = {
    "id": GENERATION,
    "model": "emoji-xl",
    "size": "64x64",
    "seed": 7,
    "steps": 25,
    "guidance": 5.0,
    "adapter_scale": 1.0,
    "data": [EXAMPLE_IMAGE],
}


class DrawnImage(BaseModel):
    """One of `b64_json` and `url`, as requested."""

    b64_json: str | None = Field(None, description="A PNG in base64.")
    url: str | None = Field(None, description="Where the PNG is, for clients with a key of the project.")
    seed: int = Field(description="That generates this image alone again. An addition.")


class ImagesResponse(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": CHOSEN | {"created": 1764102000, "output_format": "png", "seconds": 3.2}}
    )

    created: int = Field(description="Unix seconds.")
    data: list[DrawnImage]
    size: str
    output_format: Literal["png"] = "png"
    id: str = Field(description="This and the rest are additions. GET /v1/images/generations/{id} finds it again.")
    model: str
    seed: int = Field(description="Of the first image; the others have the next ones.")
    steps: int
    guidance: float = Field(description="The scale that was used.")
    adapter_scale: float
    seconds: float = Field(description="That the generation took, loading the model included.")


class GenerationError(BaseModel):
    code: str
    message: str
    param: str | None = None


class ImageGeneration(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": CHOSEN
            | {
                "object": "image.generation",
                "created_at": 1764102000,
                "finished_at": 1764102004,
                "status": "succeeded",
                "prompt": "red apple",
                "negative_prompt": "",
                "n": 1,
                "seconds": 3.2,
                "error": None,
            }
        }
    )

    id: str
    object: Literal["image.generation"] = "image.generation"
    created_at: int = Field(description="Unix seconds.")
    finished_at: int | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    model: str
    prompt: str
    negative_prompt: str
    n: int
    size: str = Field(description="`auto` until it is known.")
    seed: int
    steps: int
    guidance: Any = Field(description="`auto` until it is known.")
    adapter_scale: float
    seconds: float | None
    data: list[DrawnImage] = Field(description="Empty until all images are generated.")
    error: GenerationError | None


class ImageGenerationDeleted(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": {"id": GENERATION, "object": "image.generation", "deleted": True}}
    )

    id: str
    object: Literal["image.generation"] = "image.generation"
    deleted: Literal[True] = True
