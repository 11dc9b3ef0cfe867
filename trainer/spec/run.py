"""The run specification: ``spec.json`` of a run directory, the job row's ``spec``, and most of the create request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.methods import Method, Real, Strict, Whole

Seed = Annotated[Whole, Field(ge=0, le=2**31 - 1)]


class Adapter(Strict):
    """LoRA on the denoiser's attention projections (to_q, to_k, to_v, to_out.0), kept in fp32."""

    rank: Annotated[Whole, Field(ge=1, le=512)] = 16
    alpha: Annotated[Real, Field(gt=0, le=1024)] | None = Field(None, description="Scaling; the rank if not given.")


class Validation(Strict):
    """Held-out pairs, scored on the same timesteps and noise at every checkpoint."""

    share: Annotated[Real, Field(gt=0, le=0.5)] = Field(
        0.1, description="Part of the pairs, by prompt, held out when the data names no validation pairs."
    )
    draws: Annotated[Whole, Field(ge=1, le=100)] = Field(4, description="Timesteps per pair, at stratum midpoints.")
    max_pairs: Annotated[Whole, Field(ge=1, le=10_000)] = 256


class Checkpoints(Strict):
    every_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="A quarter of the run if not given."
    )


class TrainingOptions(Strict):
    """What a client may choose about a run; the API's create request holds these fields at top level."""

    method: Method
    seed: Seed = 0
    adapter: Adapter = Adapter()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()


class Base(Strict):
    """A base model pinned by the operator: a local directory, or a hub id with the revision that is trained on."""

    name: str
    family: Literal["sdxl"]
    source: str
    revision: str | None = None


class RunSpec(TrainingOptions):
    """Everything that determines a run besides its data."""

    base: Base
