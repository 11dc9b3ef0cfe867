"""Sample from the denoiser that is loaded for training, with prompts from the cache and without a pipeline."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from trainer.cache.cache import Cache, Tensors
from trainer.families.family import Decoder, Denoiser
from trainer.spec.buckets import Bucket

# Images that share a forward pass, which guidance doubles. Large ones go alone: sampling fits where training does.
MAX_IMAGES_PER_PASS = 4
MAX_PIXELS_PER_PASS = 2**20


@dataclass(frozen=True)
class Sampler:
    """``guidance`` is the scale of classifier-free guidance (arXiv 2207.12598); at 1 there is none."""

    denoiser: Denoiser
    decoder: Decoder
    cache: Cache
    empty_prompt_key: str
    steps: int
    guidance: float
    device: torch.device

    def sample(
        self, prompt_keys: Sequence[str], *, seeds: Sequence[int], size: Bucket, check: Callable[[], None]
    ) -> list[Image.Image]:
        """One image a prompt, from noise that its seed alone determines. ``check`` runs before each step, may raise."""
        images: list[Image.Image] = []
        count = images_per_pass(size)
        for start in range(0, len(prompt_keys), count):
            part = slice(start, start + count)
            images += self._sample_together(prompt_keys[part], seeds[part], size, check)
        return images

    def _sample_together(
        self, prompt_keys: Sequence[str], seeds: Sequence[int], size: Bucket, check: Callable[[], None]
    ) -> list[Image.Image]:
        shape = self.decoder.latent_shape(size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        prompts = stacked([self.cache.read(key) for key in prompt_keys], self.device)
        empty_prompts = stacked([self.cache.read(self.empty_prompt_key)] * len(seeds), self.device)
        latents = sample_latents(
            self.denoiser,
            torch.stack(noise).to(self.device),
            prompts,
            empty_prompts,
            size=size,
            steps=self.steps,
            guidance=self.guidance,
            check=check,
        )
        return [image_of(pixels) for pixels in self.decoder.decode(latents)]


def images_per_pass(size: Bucket) -> int:
    return max(1, min(MAX_IMAGES_PER_PASS, MAX_PIXELS_PER_PASS // (size.width * size.height)))


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser,
    noise: Tensor,
    prompts: Tensors,
    empty_prompts: Tensors,
    *,
    size: Bucket,
    steps: int,
    guidance: float,
    check: Callable[[], None],
) -> Tensor:
    """Latents (n, channels, h, w) from ``noise`` of that shape; the prompts as the cache has them.

    ``check`` runs before each of the steps, which may take a while, and may raise.
    """
    scheduler: Any = denoiser.new_scheduler()
    scheduler.set_timesteps(steps, device=noise.device)
    guided = guidance != 1
    tensors = (
        {name: torch.cat([empty_prompts[name], tensor]) for name, tensor in prompts.items()} if guided else prompts
    )
    condition = denoiser.condition(tensors)
    size_ids = torch.tensor(
        [[size.height, size.width, 0, 0, size.height, size.width]], dtype=torch.float32, device=noise.device
    ).expand((2 if guided else 1) * len(noise), -1)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        check()
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        inputs = torch.cat([scaled, scaled]) if guided else scaled
        prediction = denoiser.predict(inputs, timestep.float().expand(len(inputs)), condition, size_ids)
        if guided:
            without, within = prediction.chunk(2)
            prediction = without + guidance * (within - without)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents


def stacked(prompts: Sequence[Tensors], device: torch.device) -> Tensors:
    return {name: torch.stack([prompt[name] for prompt in prompts]).to(device) for name in prompts[0]}


def image_of(pixels: Tensor) -> Image.Image:
    """From (3, height, width), -1 to 1."""
    levels = (pixels.clamp(-1, 1) + 1) * 127.5
    return Image.fromarray(np.asarray(levels.round().byte().permute(1, 2, 0)))


def png_bytes(image: Image.Image, metadata: Mapping[str, object] | None = None) -> bytes:
    """A PNG whose text chunks ``pairtune.<name>`` hold ``metadata``, in its order."""
    info = PngInfo()
    for name, value in (metadata or {}).items():
        info.add_itxt(f"pairtune.{name}", str(value))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()
