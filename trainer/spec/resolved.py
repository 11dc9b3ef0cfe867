"""From what was asked for to the plain numbers that a run trains with."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

from trainer.spec.methods import (
    DreamboothHyperparameters,
    MapoHyperparameters,
    Method,
    Schedule,
    SftHyperparameters,
)
from trainer.spec.strict import Auto, Strict

Number = TypeVar("Number", int, float)
DEFAULT_BATCH = 8


class Resolved(Strict):
    """What a run trains with. ``None`` for what the method does not have.

    ``max_steps`` counts optimizer steps, ``step_size`` the pairs of one, ``batch_size`` those of a forward pass:
    "auto" is settled on the device, ``beta`` "auto" from the measured reference mismatch or loss scale.
    """

    method: Literal["mapo", "dpo", "sft", "dco", "dreambooth"]
    form: Literal["paper", "reference-code"] | None = None
    beta: float | Auto | None = None
    prior_weight: float | None = None
    max_steps: int
    step_size: int
    batch_size: int | Auto
    learning_rate: float
    lr_scheduler: Schedule
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    prompt_dropout: float


def resolve(method: Method, training_pairs: int) -> Resolved:
    """Fill in every ``"auto"`` that a dataset of ``training_pairs`` pairs decides; nothing else decides a default."""
    asked = method.hyperparameters
    step_size = _given(asked.batch_size, min(DEFAULT_BATCH, training_pairs)) * _given(asked.gradient_accumulation, 1)
    steps_per_epoch = math.ceil(training_pairs / step_size)
    if asked.n_epochs != "auto":
        max_steps = asked.n_epochs * steps_per_epoch
    else:
        max_steps = _given(asked.max_steps, min(2000, max(100, 10 * steps_per_epoch)))
    return Resolved(
        method=method.type,
        form=asked.form if isinstance(asked, MapoHyperparameters) else None,
        beta=None if isinstance(asked, SftHyperparameters | DreamboothHyperparameters) else asked.beta,
        prior_weight=asked.prior_weight if isinstance(asked, DreamboothHyperparameters) else None,
        max_steps=max_steps,
        step_size=step_size,
        batch_size=asked.batch_size,
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
