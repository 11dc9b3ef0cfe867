"""In any version of diffusers: python merge.py FAMILY BASE ADAPTER OUT writes the networks with the adapter merged.

Weights by "<network>.<name>", text encoders' without ``text_model.``, which not every transformers has.
"""

from __future__ import annotations

import sys
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

family, base, adapter, out = sys.argv[1], *map(Path, sys.argv[2:])
encoders = {"text_encoder": CLIPTextModel.from_pretrained(base, subfolder="text_encoder")}
if family == "sdxl":
    encoders["text_encoder_2"] = CLIPTextModelWithProjection.from_pretrained(base, subfolder="text_encoder_2")
if family == "sd3":
    encoders = {}
kind, network = {
    "sdxl": (diffusers.StableDiffusionXLPipeline, "unet"),
    "sd3": (diffusers.StableDiffusion3Pipeline, "transformer"),
}.get(family, (diffusers.StableDiffusionPipeline, "unet"))
denoiser = diffusers.SD3Transformer2DModel if family == "sd3" else diffusers.UNet2DConditionModel
needed = [one.name for one in signature(kind).parameters.values() if one.default is one.empty]
parts: dict[str, Any] = dict.fromkeys(needed)
parts |= {network: denoiser.from_pretrained(base, subfolder=network), **encoders}
scheduler = diffusers.FlowMatchEulerDiscreteScheduler if family == "sd3" else diffusers.EulerDiscreteScheduler
parts["scheduler"] = scheduler.from_pretrained(base, subfolder="scheduler")
optional = {"requires_safety_checker": False} if kind is diffusers.StableDiffusionPipeline else {}
pipeline = kind(**parts, **optional)
pipeline.load_lora_weights(str(adapter.parent), weight_name=adapter.name)
pipeline.fuse_lora(components=[network, *encoders])
merged = {}
for name, module in {network: getattr(pipeline, network), **encoders}.items():
    for key, tensor in module.state_dict().items():
        if "lora_" not in key:
            plain = key.replace(".base_layer", "").removeprefix("text_model.")
            merged[f"{name}.{plain}"] = tensor.contiguous()
save_file(merged, out)
