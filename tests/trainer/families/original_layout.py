"""A base in diffusers' layout as one file in the original layout of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_original(base: Path, file: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Without text encoders that are OpenCLIP's, except SDXL's second."""
    tensors = prefixed("model.diffusion_model.", unet(weights(base / "unet"), layers_of(base)))
    tensors |= prefixed("first_stage_model.", autoencoder(weights(base / "vae")))
    if (base / "text_encoder_2").is_dir():
        tensors |= prefixed("conditioner.embedders.0.transformer.", clip(weights(base / "text_encoder")))
        tensors |= prefixed("conditioner.embedders.1.model.", open_clip(weights(base / "text_encoder_2")))
    else:
        tensors |= prefixed("cond_stage_model.transformer.", clip(weights(base / "text_encoder")))
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, file)
    return file


def weights(component: Path) -> Tensors:
    (file,) = component.glob("*.safetensors")
    loaded: Tensors = load_file(file)
    return loaded


def layers_of(base: Path) -> int:
    return int(json.loads((base / "unet" / "config.json").read_text())["layers_per_block"])


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def unet(tensors: Tensors, layers: int) -> Tensors:
    has_attention = {match[1] for name in tensors if (match := re.match(r"(up_blocks\.\d+)\.attentions", name))}
    return {unet_name(name, layers, has_attention): tensor for name, tensor in tensors.items()}


def unet_name(name: str, layers: int, has_attention: set[str]) -> str:
    if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        way, block, kind, layer, rest = found.groups()
        at = int(block) * (layers + 1) + int(layer) + (1 if way == "down" else 0)
        blocks = "input_blocks" if way == "down" else "output_blocks"
        return f"{blocks}.{at}.0.{resnet(rest)}" if kind == "resnets" else f"{blocks}.{at}.1.{rest}"
    if found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op.{found[2]}"
    if found := re.fullmatch(r"(up_blocks\.(\d+))\.upsamplers\.0\.(.*)", name):
        at = (int(found[2]) + 1) * (layers + 1) - 1
        return f"output_blocks.{at}.{2 if found[1] in has_attention else 1}.{found[3]}"
    if found := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.*)", name):
        return f"middle_block.{2 * int(found[1])}.{resnet(found[2])}"
    start = next(start for start in UNET_ENDS if name.startswith(f"{start}."))
    return UNET_ENDS[start] + name.removeprefix(start)


def resnet(rest: str) -> str:
    part, _, end = rest.partition(".")
    return f"{RESNET[part]}.{end}"


def autoencoder(tensors: Tensors) -> Tensors:
    blocks = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"decoder\.up_blocks\.(\d+)", name)))

    def renamed(name: str) -> str:
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{blocks - 1 - int(found[1])}.block", name)
        return re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{blocks - 1 - int(found[1])}.upsample", name
        )

    return {renamed(name): tensor for name, tensor in tensors.items()}


def clip(tensors: Tensors) -> Tensors:
    """Under ``text_model.``, as transformers had it when these files came about."""
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}


def open_clip(tensors: Tensors) -> Tensors:
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    made = {
        "positional_embedding": plain["embeddings.position_embedding.weight"],
        "token_embedding.weight": plain["embeddings.token_embedding.weight"],
        "ln_final.weight": plain["final_layer_norm.weight"],
        "ln_final.bias": plain["final_layer_norm.bias"],
        "text_projection": plain["text_projection.weight"].T,
    }
    for name, tensor in plain.items():
        if not (found := re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name)):
            continue
        layer, part, kind = found.groups()
        start = f"encoder.layers.{layer}.self_attn."
        if part == "self_attn.q_proj":
            parts = [plain[f"{start}{one}_proj.{kind}"] for one in "qkv"]
            made[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
        elif part in OPEN_CLIP:
            made[f"transformer.resblocks.{layer}.{OPEN_CLIP[part]}.{kind}"] = tensor
    return made
