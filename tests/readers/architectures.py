"""The published networks at full size, on no device: names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import nn

from benchmarks.trainer.traffic import SDXL
from trainer.spec.family_facts import FamilyName, family_facts

SD = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "block_out_channels": (320, 640, 1280, 1280),
}
SD3 = {"sample_size": 128, "num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24}
TEXT_LAYERS = {"sd1": (12,), "sd2": (23,), "sdxl": (12, 32), "sd3": ()}
DENOISERS: Mapping[FamilyName, tuple[type[Any], dict[str, Any]]] = {
    "sd1": (UNet2DConditionModel, SD | {"attention_head_dim": 8, "cross_attention_dim": 768}),
    "sd2": (
        UNet2DConditionModel,
        SD | {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True},
    ),
    "sdxl": (UNet2DConditionModel, SDXL),
    "sd3": (SD3Transformer2DModel, SD3 | {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"}),
}


def denoiser_layers(family: FamilyName) -> list[str]:
    """Every layer that a LoRA can be on."""
    kind, config = DENOISERS[family]
    with torch.device("meta"):
        network = kind(**config)
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def text_layers(family: FamilyName) -> dict[str, list[str]]:
    """The attention of each text encoder, which alone is trained there."""
    return {
        encoder.component: [
            f"text_model.encoder.layers.{index}.self_attn.{name}"
            for index in range(count)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        ]
        for encoder, count in zip(family_facts(family).text_encoders, TEXT_LAYERS[family], strict=True)
    }
