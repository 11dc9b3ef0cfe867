"""The sample specification: ``draw.json`` of a directory, and the ``spec`` of a generation's row."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.spec.methods import Prompt
from trainer.spec.run import Adapter, Base
from trainer.spec.strict import Auto, Real, Seed, Strict, Whole

MAX_IMAGES = 10  # of one request, as in OpenAI's API
MAX_SIDE = 2048  # pixels
MAX_SEED = 2**31 - 1

Side = Annotated[Whole, Field(ge=16, le=MAX_SIDE)]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"]


class SampleOptions(Strict):
    """The options of a client's request for images, without their size."""

    prompt: Prompt
    negative_prompt: Annotated[str, Field(max_length=4000)] = Field("", description="What guidance leads away from.")
    n: Annotated[Whole, Field(ge=1, le=MAX_IMAGES)] = Field(1, description="How many images.")
    steps: Annotated[Whole, Field(ge=1, le=200)] = Field(25, description="Denoising steps of an image.")
    guidance: Annotated[Real, Field(ge=1, le=30)] | Auto = Field("auto", description="auto: usual for the family.")
    adapter_scale: Annotated[Real, Field(ge=0, le=2)] = Field(
        1.0, description="How strongly a fine-tuned model's adapter acts; 0: as the base. Of a base it changes nothing."
    )


class SampleSpec(SampleOptions):
    """Everything that determines the images; image ``i`` is sampled from the noise of ``seed + i`` alone.

    ``weights`` says what lies under ``adapter/``: nothing, an exported adapter or a checkpoint's tensors, of a run
    whose adapter was ``adapter``. Without ``width`` and ``height`` the size is the base's own.
    """

    base: Base
    seed: Seed
    width: Side | None = None
    height: Side | None = None
    adapter: Adapter | None = None
    weights: Literal["none", "export", "checkpoint"] = "none"
    base_precision: Precision = "auto"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if (self.adapter is None) != (self.weights == "none"):
            raise ValueError("weights are an adapter's")
        return self

    @property
    def seeds(self) -> list[int]:
        """One an image; after the last seed comes the first."""
        return [(self.seed + index) % (MAX_SEED + 1) for index in range(self.n)]
