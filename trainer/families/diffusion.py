"""The forward process of denoising diffusion (arXiv 2006.11239), which SD 1.x, SD 2.x and SDXL share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from trainer.families.files import read_json
from trainer.runtime.errors import BadRun, RunFieldError

OTHER_PROCESS = re.compile("EDM|FlowMatch")
PREDICTIONS = ("epsilon", "v_prediction")


def read_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler's configuration. Raises BadRun for a base of another process, or of another prediction.

    EDM (arXiv 2206.00364: Playground v2.5, CosXL) scales the network's inputs and outputs by the noise level, which
    its schedulers do in sampling and our losses do not.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    kind, prediction = str(scheduler.get("_class_name", "")), str(scheduler.get("prediction_type", "epsilon"))
    field_errors = []
    if OTHER_PROCESS.search(kind) or "sigma_data" in scheduler:
        allowed = "a base of denoising diffusion is required: EDM and flow matching are other processes"
        given = kind if OTHER_PROCESS.search(kind) else f"{kind} with sigma_data {scheduler['sigma_data']}"
        field_errors.append(RunFieldError("base.source scheduler/ _class_name", given, allowed))
    if prediction not in PREDICTIONS:
        allowed = f"allowed are {', '.join(PREDICTIONS)}"
        field_errors.append(RunFieldError("base.source scheduler/ prediction_type", prediction, allowed))
    if field_errors:
        raise BadRun(field_errors, code="bad_base")
    return scheduler


def num_train_timesteps(scheduler: Mapping[str, Any]) -> int:
    """As diffusers' schedulers take it where the configuration leaves it out."""
    return int(scheduler.get("num_train_timesteps", 1000))


@dataclass(frozen=True)
class Diffusion:
    """``alphas_cumprod`` (timesteps,) is the signal's share of the variance."""

    alphas_cumprod: Tensor
    prediction: Literal["epsilon", "v_prediction"]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal, deviation = self._weights(timesteps)
        return signal * latents + deviation * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or the velocity of arXiv 2202.00512, appendix D."""
        if self.prediction == "epsilon":
            return noise
        signal, deviation = self._weights(timesteps)
        return signal * noise - deviation * latents

    def _weights(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod[timesteps.long()].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()


def new_diffusion(scheduler: Mapping[str, Any], device: torch.device) -> Diffusion:
    alphas = DDPMScheduler.from_config(dict(scheduler)).alphas_cumprod.to(device=device, dtype=torch.float32)
    return Diffusion(alphas, scheduler.get("prediction_type", "epsilon"))


def timestep_at(share: float, num_train_timesteps: int) -> float:
    """Uniform over 0 .. ``num_train_timesteps`` - 1."""
    return float(int(share * num_train_timesteps))
