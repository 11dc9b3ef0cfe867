"""The run specification: ``spec.json`` of a run directory, the job row's ``spec``, and most of the create request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from trainer.spec.conflicting_fields import ConflictingField, reject_conflicting_fields
from trainer.spec.family_facts import FamilyName, family_facts
from trainer.spec.methods import DreamboothHyperparameters, Method, Prompt
from trainer.spec.strict import Auto, Flag, Real, Seed, Strict, Whole

Rank = Annotated[Whole, Field(ge=1, le=512)]
LearningRate = Annotated[Real, Field(gt=0, le=1)]
SINGLE_FILE = ".safetensors"  # ends the source of a base that is one file
RESERVED_NAMES = ("pytorch_lora_weights", "learned_embeds")  # .safetensors: the other adapter files of a run


class TextEncoderAdapter(Strict):
    """LoRA on the attention of the text encoders too."""

    rank: Rank | None = Field(None, description="The denoiser's if not given.")
    learning_rate: LearningRate | Auto = Field("auto", description="auto: a tenth of the denoiser's, as in the paper.")


class Token(Strict):
    """Textual inversion (arXiv 2208.01618): a new word whose embedding is trained with the adapter."""

    text: Annotated[str, Field(pattern=r"^<[a-z0-9_-]{1,32}>$")] = Field(
        description='As it stands in prompts: "<toy>".'
    )
    initial: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="A word near the subject; the new one starts at its embedding."
    )
    vectors: Annotated[Whole, Field(ge=1, le=16)] = Field(1, description="How many tokens the word stands for.")
    learning_rate: LearningRate | Auto = Field("auto", description="auto: ten times the denoiser's.")


class Adapter(Strict):
    """LoRA on the denoiser, in fp32 whatever the base's precision."""

    type: Literal["lora", "rslora", "dora"] = Field(
        "lora", description="rslora: scaled by alpha / sqrt(rank); dora: with trained magnitudes."
    )
    rank: Rank = 16
    alpha: Annotated[Real, Field(gt=0, le=1024)] | None = Field(None, description="Scaling; the rank if not given.")
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(0.0, description="Of the adapter's inputs, in training.")
    target_modules: (
        Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,64}$")], ...], Field(min_length=1)] | Auto
    ) = Field("auto", description="Ends of module names; auto: the attention projections.")
    text_encoder: TextEncoderAdapter | None = Field(None, description="Train the text encoders too.")
    token: Token | None = Field(None, description="Train a new word too.")


class Data(Strict):
    """How pairs become training examples."""

    resolution: Annotated[Whole, Field(ge=16, le=4096)] | Auto = Field(
        "auto", description="Side of a square bucket in pixels, the others have its area; auto: the base's own."
    )
    horizontal_flip: Flag = Field(
        False, description="Mirror half of the pairs at random: wrong for text and left-right."
    )
    caption_templates: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=32)] = Field(
        ("{prompt}",), description="One is drawn for each pair and step; {prompt} is the pair's."
    )

    @model_validator(mode="after")
    def _templates_contain_the_prompt(self) -> Self:
        without_prompt = [template for template in self.caption_templates if "{prompt}" not in template]
        if without_prompt:
            raise ValueError(f"caption templates without {{prompt}}: {', '.join(map(repr, without_prompt))}")
        return self


class Validation(Strict):
    """Held-out pairs, scored on the same timesteps and noise at every checkpoint."""

    share: Annotated[Real, Field(gt=0, le=0.5)] = Field(
        0.1, description="Part of the pairs, by prompt, held out when the data names none: at most max_pairs of them."
    )
    draws: Annotated[Whole, Field(ge=1, le=100)] = Field(4, description="Timesteps per pair, at stratum midpoints.")
    max_pairs: Annotated[Whole, Field(ge=1, le=10_000)] = Field(
        256, description="Held-out pairs that are measured, of the base and the result."
    )
    pairs_at_checkpoints: Annotated[Whole, Field(ge=1, le=10_000)] | Auto = Field(
        "auto", description="auto: as many as cost 5% of the steps between two checkpoints, at least two."
    )
    patience: Annotated[Whole, Field(ge=1, le=1000)] | None = Field(
        None, description="Stop early after this many checkpoints without a better held-out objective."
    )


class Checkpoints(Strict):
    every_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Each with an evaluation of held-out pairs; a quarter of the run if not given."
    )
    # Half an hour is what a run may lose; of an SDXL adapter of rank 16 each is 0.4 GB, stored for a day.
    every_seconds: Annotated[Real, Field(gt=0, le=86_400)] | None = Field(
        1800.0, description="Seconds of training after which one is saved in between, to go on from; null: none is."
    )


class Sampling(Strict):
    """How this run samples images: from the adapter as it trains, and from the base."""

    prompts: Annotated[tuple[Prompt, ...], Field(max_length=16)] = Field(
        (), description="Each is sampled as training goes on; without prompts, held_out is sampled at the end."
    )
    held_out: Annotated[Whole, Field(ge=0, le=16)] = Field(
        4, description="Held-out prompts that base and adapter sample at the end where there are no prompts."
    )
    every_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="At every checkpoint if not given."
    )
    steps: Annotated[Whole, Field(ge=1, le=200)] = Field(25, description="Denoising steps of an image.")
    guidance: Annotated[Real, Field(ge=1, le=30)] | Auto = Field("auto", description="auto: usual for the family.")
    seed: Seed = 0


class Mismatch(Strict):
    """How far the base's own images are from the chosen ones, for the same prompts."""

    samples: Annotated[Whole, Field(ge=0, le=1000)] | Auto = Field(
        "auto", description="Images sampled; 0: not measured; auto: 16 where beta is chosen by it, otherwise 0."
    )


class Compute(Strict):
    """What a run spends to do the same; none of it changes what is optimised."""

    base_precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"] = Field(
        "auto", description="Of the frozen base; auto: bf16 on a GPU that has it, fp16 on a V100 or T4, fp32 elsewhere."
    )
    optimizer: Literal["adamw", "adamw8bit"] = Field("adamw", description="8 bits a state: on CUDA alone.")
    gradient_checkpointing: Flag | Auto = Field("auto", description="auto: where one pair does not fit without.")
    pairs: Literal["joint", "streamed"] | Auto = Field(
        "auto", description="Streamed: half the activation memory for one more forward pass; the same gradient."
    )
    compile: Flag = Field(False, description="Compile the denoiser's repeated block.")


DEFAULT_ADAPTER, DEFAULT_COMPUTE = Adapter(), Compute()


class TrainingOptions(Strict):
    """What a client may choose about a run; the API's create request holds these fields at top level."""

    method: Method
    seed: Seed = 0
    adapter: Adapter = Adapter()
    data: Data = Data()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    sampling: Sampling = Sampling()
    mismatch: Mismatch = Mismatch()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        reject_conflicting_fields([*self._conflicting_fields(), *self._unused_token()])
        return self

    def _conflicting_fields(self) -> Iterator[ConflictingField]:
        if self.compute.pairs == "streamed" and self.adapter.dropout > 0:
            yield ConflictingField(
                ("compute", "pairs"),
                self.compute.pairs,
                "a streamed pair passes the network twice, which adapter.dropout would make two different ones; "
                'set adapter.dropout to 0, or this to "joint"',
            )
        if self.sampling.every_steps is not None and not self.sampling.prompts:
            yield ConflictingField(
                ("sampling", "every_steps"), self.sampling.every_steps, "nothing is sampled without sampling.prompts"
            )

    def _unused_token(self) -> Iterator[ConflictingField]:
        """Other prompts come with the data."""
        token, hyperparameters = self.adapter.token, self.method.hyperparameters
        if (
            token is None
            or not isinstance(hyperparameters, DreamboothHyperparameters)
            or hyperparameters.instance_prompt is None
        ):
            return
        if not any(token.text in text for text in (hyperparameters.instance_prompt, *self.data.caption_templates)):
            yield ConflictingField(
                ("adapter", "token", "text"),
                token.text,
                "stands neither in method.dreambooth.hyperparameters.instance_prompt nor in data.caption_templates, "
                "so it would never be trained",
            )


class Base(Strict):
    """A base model pinned by the operator: a local directory, or a hub id with the revision that is trained on.

    ``source`` may also be one safetensors file, local or of the hub; ``config`` is then a local directory in diffusers'
    layout with its configurations and tokenizers.
    """

    name: str
    family: FamilyName
    source: str
    revision: str | None = None
    config: str | None = None


class RunSpec(TrainingOptions):
    """Everything that determines a run besides its data."""

    base: Base
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        "adapter", description="The adapter's file name in ComfyUI's and kohya's format, without .safetensors."
    )
    dinov2: str | None = Field(
        None, description="The operator's directory with a DINOv2 model, to measure the reference mismatch with."
    )

    @model_validator(mode="after")
    def _fits_the_family(self) -> Self:
        trained = {"text_encoder": self.adapter.text_encoder, "token": self.adapter.token}
        wanted = f"should be null for a base of family {self.base.family}, of which the denoiser alone is trained"
        reject_conflicting_fields(
            [
                ConflictingField(("adapter", name), given.model_dump(), wanted)
                for name, given in trained.items()
                if given is not None and not family_facts(self.base.family).text_encoders
            ]
        )
        return self

    @field_validator("name")
    @classmethod
    def _not_a_reserved_name(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"{name}.safetensors is another result's name")
        return name
