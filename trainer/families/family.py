"""The protocols of a model family: ``Family``, ``Encoders``, ``Denoiser`` and ``Decoder``.

A base is opened in stages, so that nothing is in memory that is not needed: ``Family`` knows the files, ``Encoders``
are loaded while inputs are cached, ``Denoiser`` for training, and ``Decoder`` where images are sampled.

Timesteps are floats as the family's scheduler counts them: 0 .. 999 for diffusion, 1000 sigma for flow matching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from trainer.cache.cache import Tensors
from trainer.spec.buckets import Bucket
from trainer.spec.run import Adapter


class Encoders(Protocol):
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """Each prompt as what the denoiser is conditioned on: named fp32 tensors without batch dimension, on the CPU.

        The empty prompt gives what the family's pipelines use for no prompt. Where text encoders are trained, these
        are token ids (int64), which ``Denoiser.condition`` encodes.
        """
        ...

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' posterior, scaled as the denoiser sees them.

        Shapes: ``pixels`` (images, 3, height, width) in [-1, 1]; returns two (images, channels, h, w), fp32, CPU.
        """
        ...


class Decoder(Protocol):
    def latent_shape(self, size: Bucket) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (images, 3, height, width), about [-1, 1], fp32 on the CPU, of latents (images, channels, h, w)."""
        ...


Prediction = Literal["epsilon", "v_prediction", "flow"]


class Denoiser(Protocol):
    @property
    def network(self) -> nn.Module:
        """Frozen but for its adapter."""
        ...

    @property
    def adapted(self) -> Mapping[str, nn.Module]:
        """All that has an adapter, by diffusers' names: unet or transformer, and text encoders that are trained."""
        ...

    @property
    def prediction(self) -> Prediction:
        """What the network predicts: the noise, the velocity of arXiv 2202.00512, or noise - latents."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Shapes: ``latents``, ``noise`` and returned (n, channels, h, w); ``timesteps`` (n,) fp32."""
        ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict, shapes as in ``add_noise``."""
        ...

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What ``predict`` takes as prompt, from what ``encode_prompts`` gave, tensors (n, ...).

        The same, unless text encoders are trained: then these run here, with gradient.
        """
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        """The network's prediction, fp32.

        Shapes: ``noisy`` and returned (n, channels, h, w); ``timesteps`` (n,); ``prompt`` tensors (n, ...) from
        ``condition``; ``size_ids`` (n, 6) as ``buckets.Crop`` defines them.
        """
        ...

    def new_scheduler(self) -> Any:
        """A diffusers scheduler of its own for each call of the sampler, as the base's pipelines use."""
        ...

    def add_adapter(self, adapter: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
        """Attach an adapter that changes nothing yet; returns its fp32 parameters by name, the only trainable ones."""
        ...

    def compile_blocks(self) -> None:
        """Compile the blocks that the network repeats, once for all of them."""
        ...

    def checkpoint_gradients(self, wanted: bool) -> None:
        """Whether activations are computed again in the backward pass instead of staying in memory."""
        ...

    def without_adapter(self) -> AbstractContextManager[None]:
        """Inside, the network is the base."""
        ...

    def save_adapter(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the adapter as safetensors in diffusers' format, rank and alpha included."""
        ...

    def save_token(self, path: Path) -> bool:
        """Write the learned word's embedding as safetensors in diffusers' format; False where none was learned."""
        ...

    def load_token(self, path: Path) -> None:
        """Take the learned word's embedding from what ``save_token`` wrote."""
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
    def largest_side(self) -> int | None:
        """No side may have more pixels, where the network knows only so many positions."""
        ...

    @property
    def missing_parts(self) -> Sequence[str]:
        """Parts of the family's pipeline that the base comes without; a pipeline is loaded with None for them."""
        ...

    @property
    def num_train_timesteps(self) -> int: ...

    @property
    def guidance(self) -> float:
        """Usual classifier-free guidance scale of this kind of model."""
        ...

    def timestep_at(self, share: float) -> float:
        """The timestep below which ``share`` (0 <= share < 1) of training's timesteps lie."""
        ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What encodings depend on, as JSON: a hash of the encoders' files, and the base's name and revision."""
        ...

    def load_encoders(self, device: torch.device, *, prompts: bool = True, images: bool = True) -> Encoders:
        """Only with the networks for what is to be encoded: ``prompts``, ``images``, or both."""
        ...

    def load_decoder(self, device: torch.device) -> Decoder: ...

    def load_denoiser(self, device: torch.device) -> Denoiser: ...
