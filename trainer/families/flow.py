"""Rectified flow (arXiv 2209.03003) with the timestep density of SD3 (arXiv 2403.03206)."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from pathlib import Path
from statistics import NormalDist
from typing import Any

from torch import Tensor

from trainer.families.files import read_json
from trainer.runtime.errors import BadRun, RunFieldError

SMALLEST_SHARE = 1e-9  # the normal distribution has no end; this share of it keeps sigma within (0, 1)


def read_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler's configuration. Raises BadRun for one that is not of flow matching with a fixed shift."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = str(scheduler.get("_class_name"))
    field_errors = []
    if not kind.startswith("FlowMatch"):
        field_errors.append(
            RunFieldError("base.source scheduler/ _class_name", kind, "a flow-matching scheduler is required")
        )
    if scheduler.get("use_dynamic_shifting", False):
        allowed = "only a shift that is the same for all image sizes"
        field_errors.append(RunFieldError("base.source scheduler/ use_dynamic_shifting", "true", allowed))
    if field_errors:
        raise BadRun(field_errors, code="bad_base")
    return scheduler


@dataclass(frozen=True)
class Flow:
    """Straight paths from data (sigma 0) to noise (sigma 1); timesteps are ``num_train_timesteps`` x sigma."""

    num_train_timesteps: int

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(1 - sigma) latents + sigma noise."""
        sigmas = (timesteps / self.num_train_timesteps).view(-1, 1, 1, 1)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The path's velocity, d noisy / d sigma: the same at any timestep."""
        return noise - latents


def timestep_at(share: float, num_train_timesteps: int, shift: float) -> float:
    """The inverse of SD3's cumulative density of timesteps: sigma is logit-normal(0, 1), then shifted to more noise.

    ``shift`` s maps sigma to s sigma / (1 + (s - 1) sigma) (arXiv 2403.03206, 5.3.2). In (0, num_train_timesteps).
    """
    within = min(max(share, SMALLEST_SHARE), 1 - SMALLEST_SHARE)
    sigma = 1 / (1 + exp(-NormalDist().inv_cdf(within)))
    return num_train_timesteps * shift * sigma / (1 + (shift - 1) * sigma)
