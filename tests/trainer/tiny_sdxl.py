"""A random SDXL pipeline small enough to train in a second, and run directories for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PROMPTS = [f"a drawing of {thing}" for thing in ("a cat", "a dog", "a fish", "a tree", "a boat", "a cup", "a hat")]


def save_base(folder: Path) -> Path:
    """Native size 32 x 32: VAE factor 2, latents 4 x 16 x 16, sides in multiples of 4. 0.2M parameters."""
    # Imported here, because every test near the trainer or a worker imports this module, and most need no torch.
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from demo.emoji_xl import TEXT_WIDTH, assemble, new_text_encoders, new_tokenizer

    torch.manual_seed(7)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        transformer_layers_per_block=1,
        attention_head_dim=(1, 2),
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
    )
    tokenizer = new_tokenizer(PROMPTS, 600)
    assemble(vae, unet, new_text_encoders(tokenizer), tokenizer).save_pretrained(folder, safe_serialization=True)
    return folder


def save_run(directory: Path, base: Path, **hyperparameters: Any) -> Path:
    """16 pairs of random images in two aspect ratios over 7 prompts, two of the pairs marked for validation."""
    data = directory / "data"
    data.mkdir(parents=True)
    random = np.random.default_rng(3)
    lines = []
    for index in range(16):
        height, width = ((32, 32), (24, 40))[index % 2]
        for side in ("chosen", "rejected"):
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / f"{index}-{side}.png")
        lines.append(
            json.dumps(
                {
                    "id": f"pair-{index}",
                    "prompt": PROMPTS[index % len(PROMPTS)],
                    "chosen": f"{index}-chosen.png",
                    "rejected": f"{index}-rejected.png",
                    "split": "validation" if index in (5, 12) else "train",
                }
            )
        )
    (data / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    write_spec(directory, base, hyperparameters)
    return directory


def write_spec(
    directory: Path,
    base: Path,
    hyperparameters: Mapping[str, Any],
    *,
    method: str = "mapo",
    family: str = "sdxl",
    **options: Any,
) -> None:
    spec = {
        "base": {"name": "tiny", "family": family, "source": str(base)},
        "method": {"type": method, method: {"hyperparameters": dict(hyperparameters)}},
        "seed": 5,
        "adapter": {"rank": 4, "alpha": 8},
        "validation": {"draws": 2},
        "sampling": {"steps": 2},  # nobody looks at what a random network draws
        **options,
    }
    (directory / "spec.json").write_text(json.dumps(spec))
