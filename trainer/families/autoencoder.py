"""The autoencoder (AutoencoderKL) that all our families have: images to latents as the denoiser sees them, and back.

``scaling_factor``, ``shift_factor``, ``latents_mean`` and ``latents_std`` of its configuration are all honoured, as
diffusers' pipelines do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from trainer.families.files import read_json, variant
from trainer.spec.buckets import Bucket


def load_autoencoder(folder: Path, device: torch.device, *, half: bool = False) -> Any:
    """In fp32: SDXL's overflows in half precision, and this happens once. ``half`` says which weights are read."""
    model = AutoencoderKL.from_pretrained(
        folder,
        subfolder="vae",
        use_safetensors=True,
        variant=variant(folder / "vae", half=half),
        torch_dtype=torch.float32,
    )
    return model.requires_grad_(False).eval().to(device)


def pixels_per_latent(folder: Path) -> int:
    """Per side."""
    blocks: list[int] = read_json(folder / "vae" / "config.json")["block_out_channels"]
    return 1 << (len(blocks) - 1)


@torch.no_grad()
def encode_images(vae: Any, pixels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation; shapes as in ``families.family.Encoders.encode_images``."""
    posterior = vae.encode(pixels.to(device)).latent_dist
    scale, shift = _scale_and_shift(vae)
    return (posterior.mean.float().cpu() - shift) * scale, posterior.std.float().cpu() * scale


def load_decoder(folder: Path, device: torch.device, *, half: bool = False) -> AutoencoderDecoder:
    return AutoencoderDecoder(load_autoencoder(folder, torch.device("cpu"), half=half), device)


@dataclass(frozen=True)
class AutoencoderDecoder:
    """On the device while it decodes, image by image, and in main memory otherwise."""

    vae: Any
    device: torch.device

    def latent_shape(self, size: Bucket) -> tuple[int, int, int]:
        factor = 1 << (len(self.vae.config.block_out_channels) - 1)
        return int(self.vae.config.latent_channels), size.height // factor, size.width // factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        scale, shift = _scale_and_shift(self.vae)
        unscaled = latents.float().cpu() / scale + shift
        self.vae.to(self.device)
        try:
            return torch.cat([self._decode_one(one) for one in unscaled.unbind()])
        finally:
            self.vae.to("cpu")

    def _decode_one(self, latent: Tensor) -> Tensor:
        pixels: Tensor = self.vae.decode(latent[None].to(self.device), return_dict=False)[0]
        return pixels.float().cpu()


def _scale_and_shift(vae: Any) -> tuple[Tensor, Tensor]:
    config = vae.config
    scale = torch.tensor(config.scaling_factor)
    if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
        return scale / torch.tensor(config.latents_std).view(1, -1, 1, 1), torch.tensor(config.latents_mean).view(
            1, -1, 1, 1
        )
    return scale, torch.tensor(getattr(config, "shift_factor", None) or 0.0)
