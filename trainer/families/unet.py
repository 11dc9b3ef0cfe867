"""The UNet (UNet2DConditionModel) that SD 1.x, SD 2.x and SDXL share: its sizes, and how it is loaded for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from trainer.families.autoencoder import pixels_per_latent
from trainer.families.files import read_json, variant
from trainer.families.precision import loading, placed, reads_half
from trainer.spec.run import Compute


def native_size(folder: Path) -> int:
    """Side of the images it was made for, in pixels."""
    return int(read_json(folder / "unet" / "config.json")["sample_size"]) * pixels_per_latent(folder)


def size_multiple(folder: Path) -> int:
    """The UNet halves latents between its levels, and must come back to the same size."""
    levels = len(read_json(folder / "unet" / "config.json")["block_out_channels"])
    return pixels_per_latent(folder) << (levels - 1)


def memory_format_on(device: torch.device) -> torch.memory_format:
    """Convolutions prefer channels last on a GPU; on a CPU it costs memory and gains little (see performance.md)."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def load_unet(folder: Path, compute: Compute, device: torch.device) -> Any:
    """Frozen, on its device."""
    unet = UNet2DConditionModel.from_pretrained(
        folder,
        subfolder="unet",
        use_safetensors=True,
        variant=variant(folder / "unet", half=reads_half(compute)),
        **loading(compute, device),
    )
    return placed(unet.requires_grad_(False).eval(), compute, device, memory_format_on(device))


def checkpoint_gradients(network: Any, wanted: bool) -> None:
    if wanted:
        network.enable_gradient_checkpointing()
    else:
        network.disable_gradient_checkpointing()
