"""Pairs of flat red over flat blue, a base that tells the two apart, and their losses by diffusers alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

from tests.trainer.tiny_sdxl import write_spec

CHOSEN, REJECTED = "red", "blue"
# The tiny base's tokenizer is learned anew in each process, and ties between its merges fall at random. Letters that
# end none of its captions have the same token each time.
PROMPTS = ("b", "c", "d", "j", "k", "m", "q")
SIDE = 32  # pixels
GAIN = 60.0  # brings the latents of the tiny VAE, which differ by about 0.02, to the size of the noise
TRAINING, VALIDATION = 8, 4  # pairs
# On attention alone, LoRA on a random network learns a colour slowly.
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj", "proj_in", "proj_out"]


def image(colour: str) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def pixels(colour: str) -> Tensor:
    """(1, 3, 32, 32) in [-1, 1]."""
    return torch.from_numpy(np.array(image(colour))).permute(2, 0, 1)[None].float() / 127.5 - 1


@torch.no_grad()
def save_base(folder: Path, tiny_base: Path) -> Path:
    """The tiny base with a VAE whose latents of red and blue lie on opposite sides of 0, with hardly any deviation."""
    shutil.copytree(tiny_base, folder)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    red, blue = (vae.encode(pixels(colour)).latent_dist.mean.mean(dim=(0, 2, 3)) for colour in (CHOSEN, REJECTED))
    moments, channels = vae.quant_conv, vae.config.latent_channels
    moments.weight[:channels] *= GAIN
    moments.bias[:channels] = GAIN * (moments.bias[:channels] - (red + blue) / 2)
    moments.weight[channels:] = 0
    moments.bias[channels:] = -8  # logarithm of the variance
    vae.save_pretrained(folder / "vae")
    return folder


def save_run(
    directory: Path, base: Path, method: str, hyperparameters: dict[str, Any], *, rejected: bool = True, **options: Any
) -> Path:
    """``rejected``: whether the pairs of training have rejected images; those of validation always do."""
    data = directory / "data"
    data.mkdir(parents=True)
    for side, colour in (("chosen", CHOSEN), ("rejected", REJECTED)):
        image(colour).save(data / f"{side}.png")
    pairs = [
        {"id": f"pair-{index}", "prompt": PROMPTS[index % len(PROMPTS)], "chosen": "chosen.png", "split": split}
        | ({"rejected": "rejected.png"} if rejected or split == "validation" else {})
        for index, split in enumerate(["train"] * TRAINING + ["validation"] * VALIDATION)
    ]
    (data / "manifest.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    write_spec(directory, base, hyperparameters, method=method, **options)
    return directory


@dataclass(frozen=True)
class DiffusersLosses:
    """Denoising losses that owe nothing to the trainer's reading, encoding, batches, steps or validation."""

    base: Path
    draws: int = 16

    @cached_property
    def pipeline(self) -> StableDiffusionXLPipeline:
        return StableDiffusionXLPipeline.from_pretrained(self.base)

    @cached_property
    def of_base(self) -> tuple[float, float]:
        return self._loss(CHOSEN), self._loss(REJECTED)

    def of_adapter(self, output: Path) -> tuple[float, float]:
        """Of red and of blue, with the adapter in ``output``."""
        self.pipeline.load_lora_weights(str(output))
        try:
            return self._loss(CHOSEN), self._loss(REJECTED)
        finally:
            self.pipeline.unload_lora_weights()

    @torch.no_grad()
    def _loss(self, colour: str) -> float:
        """Mean squared error of the predicted noise, over timesteps of the whole schedule and the first prompt."""
        pipeline = self.pipeline
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        latents = pipeline.vae.encode(pixels(colour)).latent_dist.mean * pipeline.vae.config.scaling_factor
        latents = latents.expand(self.draws, -1, -1, -1)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        timesteps = torch.linspace(100, 900, self.draws).long()
        hidden, _, pooled, _ = pipeline.encode_prompt(PROMPTS[0], device="cpu", do_classifier_free_guidance=False)
        predicted = pipeline.unet(
            scheduler.add_noise(latents, noise, timesteps),
            timesteps,
            encoder_hidden_states=hidden.expand(self.draws, -1, -1),
            added_cond_kwargs={
                "text_embeds": pooled.expand(self.draws, -1),
                "time_ids": torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * self.draws, dtype=torch.float32),
            },
        ).sample
        return float((predicted - noise).square().mean())
