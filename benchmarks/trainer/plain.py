"""A plain loop: what the public MaPO LoRA script does at every step (github.com/mapo-t2i/mapo), written again.

The VAE in fp32 and both text encoders run again at every step; images are decoded, and the rejected one stretched to
the chosen one's size, at every step; the loss is the reference code's; several values are read back from the device.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from trainer.run_directory.run import PairFiles, Run


def plain_step(run: Run, base: Path, batch_size: int) -> Callable[[], None]:
    pipeline = StableDiffusionXLPipeline.from_pretrained(base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    unet, vae = pipeline.unet, pipeline.vae
    for frozen in (unet, vae, pipeline.text_encoder, pipeline.text_encoder_2):
        frozen.requires_grad_(False)
    rank = run.spec.adapter.rank
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="gaussian"))
    unet.train()
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    order = random.Random(0)

    def step() -> None:
        pairs = order.sample(list(run.training), batch_size)
        pixels, sizes = read_images(pairs)
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            hidden, _, pooled, _ = pipeline.encode_prompt(
                [pair.prompt for pair in pairs], do_classifier_free_guidance=False, device=torch.device("cpu")
            )
        noise = torch.randn_like(latents[:batch_size]).repeat(2, 1, 1, 1)
        timesteps = torch.randint(0, 1000, (batch_size,)).repeat(2)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        condition = {"text_embeds": pooled.repeat(2, 1), "time_ids": sizes.repeat(2, 1)}
        prediction = unet(noisy, timesteps, hidden.repeat(2, 1, 1), added_cond_kwargs=condition).sample
        losses = F.mse_loss(prediction, noise, reduction="none").mean(dim=(1, 2, 3))
        chosen, rejected = losses.chunk(2)
        odds = 0.5 * chosen / (torch.exp(0.5 * chosen) - 1) - 0.5 * rejected / (torch.exp(0.5 * rejected) - 1)
        ratio = F.logsigmoid(1000 * odds)
        loss = chosen.mean() - 0.1 * ratio.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        _ = [value.item() for value in (loss, chosen.mean(), rejected.mean(), ratio.mean())]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def read_images(pairs: list[PairFiles]) -> tuple[Tensor, Tensor]:
    """Chosen images, then the rejected ones stretched to their sizes; SDXL's size conditioning from the chosen."""
    chosen = [Image.open(pair.chosen.path).convert("RGB") for pair in pairs]
    rejected = [
        Image.open(pair.rejected.path).convert("RGB").resize(first.size)
        for pair, first in zip(pairs, chosen, strict=True)
        if pair.rejected is not None
    ]
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1 for image in chosen + rejected]
    sizes = [[image.height, image.width, 0, 0, image.height, image.width] for image in chosen]
    return torch.stack(images), torch.tensor(sizes, dtype=torch.float32)
