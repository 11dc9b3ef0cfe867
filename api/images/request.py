"""A request for images: OpenAI's fields, and those of a diffusion model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.errors.field_errors import FieldError
from api.errors.validated import checked
from trainer.spec.sample_spec import MAX_SIDE, SampleOptions
from trainer.spec.strict import Seed

SHORTEST_SIDE = 16
SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")

# Fields of OpenAI's requests that have no meaning here, by their names.
OPENAI_FIELDS = {
    "quality": "give steps, the denoising steps of an image",
    "style": "say it in the prompt",
    "background": "say it in the prompt",
    "moderation": "nothing is moderated here",
    "output_format": "images are PNG",
    "output_compression": "images are PNG",
    "stream": "there is one answer, when all images are generated",
    "partial_images": "there is one answer, when all images are generated",
}

Form = Literal["b64_json", "url"]


class CreateImage(SampleOptions):
    """A `null` means what leaving the field out means."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "emoji-xl", "prompt": "red apple", "n": 2, "size": "64x64", "seed": 7, "steps": 25}
        }
    )

    model: str = Field(description="A base model, a fine-tuned model, or a job's `fine_tuned_model_checkpoint`.")
    size: str = Field(
        "auto",
        description=f"`<width>x<height>` in pixels, each {SHORTEST_SIDE} to {MAX_SIDE} and a multiple of what the "
        "base takes (mostly 8); auto: the base's own.",
    )
    response_format: Form = Field("b64_json", description="`url`: an address here, which needs the key.")
    seed: Seed | None = Field(None, description="The same seed gives the same image; without it, one is chosen.")
    user: Annotated[str, Field(max_length=512)] | None = Field(None, description="Accepted, and not stored.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        return {name: value for name, value in document.items() if value is not None}

    @field_validator("size")
    @classmethod
    def _pixels(cls, given: str) -> str:
        if given != "auto" and not all(SHORTEST_SIDE <= side <= MAX_SIDE for side in _sides(given)):
            raise ValueError(f'should be "auto" or "<width>x<height>", each side {SHORTEST_SIDE} to {MAX_SIDE} pixels')
        return given

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height; None is the base's own size."""
        return None if self.size == "auto" else _sides(self.size)


def _sides(size: str) -> tuple[int, int]:
    """(0, 0) for what is no size."""
    match = SIZE.fullmatch(size)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def parse(document: dict[str, object]) -> tuple[CreateImage | None, list[FieldError]]:
    """The request, or None and everything that is wrong with its form."""
    return checked(document, CreateImage, OPENAI_FIELDS)
