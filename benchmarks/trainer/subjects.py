"""The benchmark's subjects: emoji-xl and a mid-size network of SDXL's shape, trained to prefer line art."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from demo import emoji_xl
from demo.emoji import openmoji

EMOJI_XL = Path("demo/base/emoji-xl")
PAIRS = 64
BATCH = {"emoji-xl": 8, "mid-size": 2}
IMAGE_SIZE = {"emoji-xl": openmoji.IMAGE_SIZE, "mid-size": 128}


def base_of(subject: str, folder: Path) -> Path:
    """Without demo/base/emoji-xl the same architecture comes with random weights, as the mid-size one always does."""
    if subject == "emoji-xl" and EMOJI_XL.is_dir():
        return EMOJI_XL.resolve()
    torch.manual_seed(0)
    tokenizer = emoji_xl.new_tokenizer(emoji.caption for emoji in openmoji.catalogue())
    unet = emoji_xl.new_unet() if subject == "emoji-xl" else mid_size_unet()
    pipeline = emoji_xl.assemble(emoji_xl.new_vae(), unet, emoji_xl.new_text_encoders(tokenizer), tokenizer)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def mid_size_unet() -> UNet2DConditionModel:
    """SDXL's blocks, with its 1, 2 and 10 transformer layers scaled to 1, 1 and 3; 32 x 32 latents; 39M parameters."""
    return UNet2DConditionModel(
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(80, 160, 320),
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 3),
        attention_head_dim=(2, 4, 8),
        norm_num_groups=16,
        cross_attention_dim=2 * emoji_xl.TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=6 * 32 + emoji_xl.TEXT_WIDTH,
    )


def write_run(
    folder: Path, subject: str, base: Path, method: str, hyperparameters: Mapping[str, Any], **options: Any
) -> Path:
    """A run directory for ``python -m trainer run``."""
    data = folder / "data"
    data.mkdir(parents=True)
    lines = []
    styles: tuple[openmoji.Style, openmoji.Style] = ("line", "color")
    for emoji in openmoji.catalogue()[:PAIRS]:
        names = {"chosen": f"{emoji.key}-line.png", "rejected": f"{emoji.key}-color.png"}
        for name, style in zip(names.values(), styles, strict=True):
            openmoji.render(emoji.key, style, IMAGE_SIZE[subject]).save(data / name)
        lines.append(json.dumps({"id": emoji.key, "prompt": emoji.caption, "split": "train", **names}))
    (data / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = {
        "base": {"name": subject, "family": "sdxl", "source": str(base)},
        "method": {"type": method, method: {"hyperparameters": {"batch_size": BATCH[subject], **hyperparameters}}},
        **options,
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder
