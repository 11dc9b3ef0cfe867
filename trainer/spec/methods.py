"""Training methods and their hyperparameters, in the request shape of OpenAI's fine-tuning API.

Every hyperparameter may be ``"auto"``. ``resolve`` turns a method and the number of training pairs into the plain
numbers that the recipe uses; nothing else decides a default.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What a client writes as true or "100" is a mistake: a run of one step is no answer to it.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]
Auto = Literal["auto"]
Number = TypeVar("Number", int, float)
Preset = Literal["general", "culture", "safety", "style", "personalization"]

# Best beta of each domain, searched over 8, 32, 64, 128, 1024 (arXiv 2406.06424v2, table 4).
PRESET_BETAS: dict[Preset, float] = {
    "general": 8.0,
    "culture": 32.0,
    "safety": 64.0,
    "style": 64.0,
    "personalization": 1024.0,
}


class Strict(BaseModel):
    """Base of every spec model: immutable, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MapoHyperparameters(Strict):
    form: Literal["paper", "reference-code"] = "paper"
    preset: Preset = "general"
    beta: Annotated[Real, Field(gt=0, le=1e5)] | Auto = "auto"
    max_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] | Auto = "auto"
    n_epochs: Annotated[Whole, Field(ge=1, le=10_000)] | Auto = "auto"
    batch_size: Annotated[Whole, Field(ge=1, le=4096, description="Pairs per forward pass.")] | Auto = "auto"
    gradient_accumulation: Annotated[Whole, Field(ge=1, le=4096)] | Auto = "auto"
    learning_rate: Annotated[Real, Field(gt=0, le=1)] | Auto = "auto"
    lr_scheduler: Literal["constant", "linear", "cosine"] | Auto = "auto"
    warmup_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] | Auto = "auto"
    weight_decay: Annotated[Real, Field(ge=0, le=1)] | Auto = "auto"
    max_grad_norm: Annotated[Real, Field(gt=0, le=1e6)] | Auto = "auto"
    prompt_dropout: Annotated[Real, Field(ge=0, lt=1)] | Auto = "auto"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.max_steps != "auto" and self.n_epochs != "auto":
            raise ValueError("give max_steps or n_epochs, not both")
        return self


class MapoOptions(Strict):
    hyperparameters: MapoHyperparameters = MapoHyperparameters()


class MapoMethod(Strict):
    """Margin-aware preference optimization, arXiv 2406.06424v2: no reference model."""

    type: Literal["mapo"]
    mapo: MapoOptions = MapoOptions()


# One arm today; a further method joins as a union discriminated by ``type``.
Method = MapoMethod


class Resolved(Strict):
    """The numbers a run trains with; ``max_steps`` counts optimizer steps."""

    form: Literal["paper", "reference-code"]
    beta: float
    max_steps: int
    batch_size: int
    gradient_accumulation: int
    learning_rate: float
    lr_scheduler: Literal["constant", "linear", "cosine"]
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    prompt_dropout: float


def resolve(method: Method, training_pairs: int) -> Resolved:
    """Fill in every ``"auto"`` for a dataset of ``training_pairs`` pairs."""
    asked = method.mapo.hyperparameters
    batch_size = _given(asked.batch_size, min(8, training_pairs))
    accumulation = _given(asked.gradient_accumulation, 1)
    steps_per_epoch = math.ceil(training_pairs / (batch_size * accumulation))
    if asked.n_epochs != "auto":
        max_steps = asked.n_epochs * steps_per_epoch
    else:
        max_steps = _given(asked.max_steps, min(2000, max(100, 10 * steps_per_epoch)))
    return Resolved(
        form=asked.form,
        # The reference code's weight of the margin term is 0.1; the paper's beta comes from its table 4.
        beta=_given(asked.beta, 0.1 if asked.form == "reference-code" else PRESET_BETAS[asked.preset]),
        max_steps=max_steps,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
        # A usual LoRA rate; the paper's 5e-5 (personalization) is for ten times as many images.
        learning_rate=_given(asked.learning_rate, 1e-4),
        lr_scheduler="cosine" if asked.lr_scheduler == "auto" else asked.lr_scheduler,
        warmup_steps=_given(asked.warmup_steps, min(100, max_steps // 20)),
        weight_decay=_given(asked.weight_decay, 0.01),
        max_grad_norm=_given(asked.max_grad_norm, 1.0),
        prompt_dropout=_given(asked.prompt_dropout, 0.1),
    )


def _given(value: Number | Auto, otherwise: Number) -> Number:
    return otherwise if isinstance(value, str) else value
