"""Training methods and their hyperparameters, in the request shape of OpenAI's fine-tuning API.

Every hyperparameter may be ``"auto"``; ``trainer.spec.resolved`` says what that becomes. What is true of every run by
a method is in ``trainer.spec.method_facts``.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from trainer.spec.method_facts import MethodName, method_facts
from trainer.spec.strict import Auto, Real, Strict, Whole

Preset = Literal["general", "culture", "safety", "style", "personalization"]
Schedule = Literal["constant", "linear", "cosine"]
Prompt = Annotated[str, Field(min_length=1, max_length=4000)]

# Best beta of each domain, searched over 8, 32, 64, 128, 1024 (arXiv 2406.06424v2, table 4).
PRESET_BETAS: dict[Preset, float] = {
    "general": 8.0,
    "culture": 32.0,
    "safety": 64.0,
    "style": 64.0,
    "personalization": 1024.0,
}


class Hyperparameters(Strict):
    """What all methods share."""

    max_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] | Auto = Field("auto", description="Optimizer steps.")
    n_epochs: Annotated[Whole, Field(ge=1, le=10_000)] | Auto = Field(
        "auto", description="Passes over the training pairs. Both auto: ten, but at least 100 and at most 2000 steps."
    )
    batch_size: Annotated[Whole, Field(ge=1, le=4096)] | Auto = Field(
        "auto", description="Pairs per forward pass; auto: the most that fit."
    )
    gradient_accumulation: Annotated[Whole, Field(ge=1, le=4096)] | Auto = Field(
        "auto", description="Batches per optimizer step."
    )
    learning_rate: Annotated[Real, Field(gt=0, le=1)] | Auto = Field("auto", description="Of AdamW; auto: 1e-4.")
    lr_scheduler: Schedule | Auto = Field("auto", description="After the warm-up; auto: cosine.")
    warmup_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] | Auto = Field(
        "auto", description="Steps over which the learning rate rises; auto: a twentieth of the run, at most 100."
    )
    weight_decay: Annotated[Real, Field(ge=0, le=1)] | Auto = Field("auto", description="auto: 0.01.")
    max_grad_norm: Annotated[Real, Field(gt=0, le=1e6)] | Auto = Field(
        "auto", description="The gradient is scaled down to this length; auto: 1."
    )
    prompt_dropout: Annotated[Real, Field(ge=0, lt=1)] | Auto = Field(
        "auto", description="Share of pairs that are seen without their prompt; auto: 0.1."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.max_steps != "auto" and self.n_epochs != "auto":
            raise ValueError("give max_steps or n_epochs, not both")
        return self


Beta = Annotated[Real, Field(gt=0, le=1e6)]


class MapoHyperparameters(Hyperparameters):
    form: Literal["paper", "reference-code"] = Field(
        "paper", description="Of the loss: the paper's second version, or what its authors' code computes."
    )
    preset: Preset | None = Field(None, description="A domain of the paper, whose best beta is taken.")
    beta: Beta | Auto = Field("auto", description="auto: the preset's, or by the measured reference mismatch.")

    @model_validator(mode="after")
    def _one_beta(self) -> Self:
        if self.preset is not None and self.beta != "auto":
            raise ValueError("give preset or beta, not both: a preset is a beta")
        if self.preset is not None and self.form != "paper":
            raise ValueError('presets are betas of the form "paper"; give beta, or leave preset out')
        return self


class DpoHyperparameters(Hyperparameters):
    beta: Beta | Auto = Field(
        "auto", description="Of Diffusion-DPO, in the thousands; auto: its authors' for the base's family."
    )


class SftHyperparameters(Hyperparameters):
    pass


class DcoHyperparameters(Hyperparameters):
    beta: Beta | Auto = Field("auto", description="auto: the paper's 1000.")


class DreamboothHyperparameters(Hyperparameters):
    instance_prompt: Prompt | None = Field(
        None, description='Replaces the pairs\' prompts, e.g. "a photo of sks dog"; without it they stay.'
    )
    class_prompt: Prompt | None = Field(
        None, description='What the subject is one of, e.g. "a photo of a dog"; needed for prior preservation.'
    )
    class_images: Annotated[Whole, Field(ge=1, le=1000)] = Field(100, description="Sampled from the base.")
    prior_weight: Annotated[Real, Field(ge=0, le=100)] = Field(
        1.0, description="Of the class images' loss; 0: no prior preservation."
    )

    @model_validator(mode="after")
    def _a_class_to_preserve(self) -> Self:
        if self.prior_weight > 0 and self.class_prompt is None:
            raise ValueError("prior preservation needs class_prompt; give it, or set prior_weight to 0")
        return self


class MapoOptions(Strict):
    hyperparameters: MapoHyperparameters = MapoHyperparameters()


class DpoOptions(Strict):
    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class SftOptions(Strict):
    hyperparameters: SftHyperparameters = SftHyperparameters()


class DcoOptions(Strict):
    hyperparameters: DcoHyperparameters = DcoHyperparameters()


class DreamboothOptions(Strict):
    hyperparameters: DreamboothHyperparameters


Own = TypeVar("Own", bound=Hyperparameters)


class MethodChoice(Strict, Generic[Own]):
    """``{"type": T, T: {"hyperparameters": {...}}}``; a subclass a method, whose second field is named by its type."""

    type: MethodName

    @property
    def hyperparameters(self) -> Own:
        own: Own = getattr(self, self.type).hyperparameters
        return own


class MapoMethod(MethodChoice[MapoHyperparameters]):
    __doc__ = method_facts("mapo").description
    type: Literal["mapo"]
    mapo: MapoOptions = MapoOptions()


class DpoMethod(MethodChoice[DpoHyperparameters]):
    __doc__ = method_facts("dpo").description
    type: Literal["dpo"]
    dpo: DpoOptions = DpoOptions()


class SftMethod(MethodChoice[SftHyperparameters]):
    __doc__ = method_facts("sft").description
    type: Literal["sft"]
    sft: SftOptions = SftOptions()


class DcoMethod(MethodChoice[DcoHyperparameters]):
    __doc__ = method_facts("dco").description
    type: Literal["dco"]
    dco: DcoOptions = DcoOptions()


class DreamboothMethod(MethodChoice[DreamboothHyperparameters]):
    __doc__ = method_facts("dreambooth").description
    type: Literal["dreambooth"]
    dreambooth: DreamboothOptions


Method = Annotated[MapoMethod | DpoMethod | SftMethod | DcoMethod | DreamboothMethod, Field(discriminator="type")]
