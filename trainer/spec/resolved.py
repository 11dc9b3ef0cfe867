"""Resolve a method's hyperparameters, "auto" among them, to the plain numbers that a run trains with."""

from __future__ import annotations

import math
from typing import TypeVar

from pydantic import ConfigDict, Field

from trainer.spec.method_facts import MethodName
from trainer.spec.methods import Hyperparameters, Method, Schedule
from trainer.spec.strict import Auto, Strict

Number = TypeVar("Number", int, float)
DEFAULT_BATCH = 8
DEFAULT_LEARNING_RATE = 1e-4


class Resolved(Strict):
    """What a run trains with. ``None`` for what the method does not have.

    ``max_steps`` counts optimizer steps, ``effective_batch_size`` the pairs of a step, ``batch_size`` the pairs of a
    forward pass. The device decides ``batch_size`` "auto"; the measured reference mismatch or loss scale decides
    ``beta`` "auto".
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    method: MethodName
    form: str | None = None
    beta: float | Auto | None = None
    prior_weight: float | None = None
    max_steps: int
    effective_batch_size: int = Field(alias="step_size")  # step_size in JSON, as in rows and events since version 1
    batch_size: int | Auto
    learning_rate: float
    lr_scheduler: Schedule
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    prompt_dropout: float


def resolve(method: Method, training_pairs: int) -> Resolved:
    """Fill in every ``"auto"`` that a dataset of ``training_pairs`` pairs decides; nothing else decides a default."""
    given: Hyperparameters = method.hyperparameters
    effective_batch_size = _given(given.batch_size, min(DEFAULT_BATCH, training_pairs)) * _given(
        given.gradient_accumulation, 1
    )
    steps_per_epoch = math.ceil(training_pairs / effective_batch_size)
    if given.n_epochs != "auto":
        max_steps = given.n_epochs * steps_per_epoch
    else:
        max_steps = _given(given.max_steps, min(2000, max(100, 10 * steps_per_epoch)))
    return Resolved(
        method=method.type,
        form=getattr(given, "form", None),
        beta=getattr(given, "beta", None),
        prior_weight=getattr(given, "prior_weight", None),
        max_steps=max_steps,
        effective_batch_size=effective_batch_size,
        batch_size=given.batch_size,
        # A usual LoRA rate; the paper's 5e-5 (personalization) is for ten times as many images.
        learning_rate=_given(given.learning_rate, DEFAULT_LEARNING_RATE),
        lr_scheduler="cosine" if given.lr_scheduler == "auto" else given.lr_scheduler,
        warmup_steps=_given(given.warmup_steps, min(100, max_steps // 20)),
        weight_decay=_given(given.weight_decay, 0.01),
        max_grad_norm=_given(given.max_grad_norm, 1.0),
        prompt_dropout=_given(given.prompt_dropout, 0.1),
    )


def _given(value: Number | Auto, otherwise: Number) -> Number:
    return otherwise if isinstance(value, str) else value
