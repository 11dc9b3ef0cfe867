"""Sampling many prompts from a pipeline, each image from a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

BATCH = 16


def sample(
    pipeline: StableDiffusionXLPipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    size: int,
    steps: int,
    guidance: float,
) -> list[Image.Image]:
    """One image a prompt; an image depends on its prompt and seed alone, not on its neighbours."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        images += pipeline(
            list(prompts[part]),
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
        ).images
    return images
