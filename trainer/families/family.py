"""The seam between recipes and model families.

A base is opened in three stages, so that nothing is in memory that is not needed: ``Family`` knows the files,
``Encoders`` are loaded while inputs are cached, ``Denoiser`` is loaded for training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainer.cache import Tensors


class Encoders(Protocol):
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """Each prompt as what the denoiser is conditioned on: named fp32 tensors without batch dimension, on the CPU.

        The empty prompt gives what the family's pipelines use for no prompt.
        """
        ...

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' posterior, scaled as the denoiser sees them.

        Shapes: ``pixels`` (images, 3, height, width) in [-1, 1]; returns two (images, channels, h, w), fp32, CPU.
        """
        ...


class Denoiser(Protocol):
    @property
    def network(self) -> nn.Module:
        """Frozen but for its adapter."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Shapes: ``latents``, ``noise`` and returned (n, channels, h, w); ``timesteps`` (n,) int64."""
        ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict, shapes as in ``add_noise``."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        """The network's prediction, fp32.

        Shapes: ``noisy`` and returned (n, channels, h, w); ``timesteps`` (n,); ``prompt`` tensors (n, ...) as
        ``encode_prompts`` names them; ``size_ids`` (n, 6) as ``buckets.Crop`` defines them.
        """
        ...

    def add_adapter(self, *, rank: int, alpha: float, seed: int) -> dict[str, nn.Parameter]:
        """Attach a LoRA that changes nothing yet; returns its fp32 parameters by name, the only trainable ones."""
        ...

    def without_adapter(self) -> AbstractContextManager[None]:
        """Inside, the network is the base."""
        ...

    def save_adapter(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the adapter as safetensors in diffusers' format, rank and alpha included."""
        ...

    def reload_adapter(self, path: Path) -> None:
        """Take the adapter off and load the file as a user would, with the family's diffusers pipeline."""
        ...


class Family(Protocol):
    @property
    def native_size(self) -> int:
        """Side in pixels of the square images that the base was made for."""
        ...

    @property
    def size_multiple(self) -> int:
        """Sides in pixels must divide by this."""
        ...

    @property
    def num_train_timesteps(self) -> int: ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What encodings depend on, as JSON: a hash of the encoders' files, and the base's name and revision."""
        ...

    def load_encoders(self, device: torch.device) -> Encoders: ...

    def load_denoiser(self, device: torch.device) -> Denoiser: ...
