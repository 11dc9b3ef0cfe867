"""The adapter in the format that ComfyUI, AUTOMATIC1111 and kohya's sd-scripts share.

A layer is ``<prefix>_<module path with underscores>`` with ``lora_down.weight``, ``lora_up.weight``, ``alpha`` (the
update is up @ down * alpha / rank) and, for DoRA, ``dora_scale``. Prefixes: ``lora_unet``; ``lora_te`` for SD 1.x and
2.x, ``lora_te1`` and ``lora_te2`` for SDXL. SDXL's UNet goes by the names of the model's first publication
(input_blocks, middle_block, output_blocks), as sd-scripts trains it, SD 1.x's and 2.x's by those of diffusers.

Who reads it, by their code (none of them is run here but diffusers):

- diffusers (0.42): all but DoRA, whose ``dora_scale`` it drops, and UNets of ten blocks a side, where it takes block
  10 for block 1. It reads both from its own format.
- ComfyUI (comfy/lora.py), AUTOMATIC1111 (extensions-builtin/Lora) and sd-scripts (networks/lora.py): LoRA and rsLoRA.
- ``dora_scale`` is each output's magnitude, (out, 1), as LyCORIS and PEFT mean it: W' = scale * (W + dW) / |W + dW| by
  row. ComfyUI divides by |W| instead, so that its result is near but not equal; AUTOMATIC1111 divides by columns, which
  gives another network; sd-scripts ignores it.

SD3 has no such names that all three read: its file keeps diffusers' (``transformer.`` ...), which ComfyUI reads too,
with the scale multiplied into the weights, so that a reader needs nothing besides them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer.spec.family_facts import FamilyName, family_facts

PARTS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
MAGNITUDE = "lora_magnitude_vector"


def kohya_weights(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Any], family: FamilyName, layers_per_block: int
) -> dict[str, Tensor]:
    """From diffusers' file: its tensors, and its ``lora_adapter_metadata`` as a dictionary, keyed "<network>.<option>".

    ``layers_per_block`` is the UNet's; of no matter for SD3.
    """
    if family_facts(family).kohya is None:
        return folded(tensors, configs)
    converted: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        network, path, part = split(key)
        name = layer_name(network, path, family, layers_per_block)
        if part == MAGNITUDE:
            converted[f"{name}.dora_scale"] = tensor.reshape(-1, *[1] * (dimensions(tensors, key) - 1)).clone()
            continue
        converted[f"{name}.{PARTS[part]}"] = tensor
        if part == "lora_A.weight":
            converted[f"{name}.alpha"] = torch.tensor(scale(configs, network) * tensor.shape[0])
    return converted


def diffusers_weights(
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    configs: Mapping[str, Any],
    family: FamilyName,
    layers: int,
) -> dict[str, Tensor]:
    """The way back, to the keys and shapes of ``wanted``: what a reader of the file makes of it."""
    if family_facts(family).kohya is None:
        return {
            key: weights[key] / scale(configs, split(key)[0]) if key.endswith("lora_B.weight") else weights[key]
            for key in wanted
        }
    back: dict[str, Tensor] = {}
    for key, tensor in wanted.items():
        network, path, part = split(key)
        name = layer_name(network, path, family, layers)
        if part == MAGNITUDE:
            back[key] = weights[f"{name}.dora_scale"].reshape(tensor.shape)
        else:
            down = weights[f"{name}.lora_down.weight"]
            factor = weights[f"{name}.alpha"].item() / down.shape[0] / scale(configs, network)
            back[key] = down if part == "lora_A.weight" else weights[f"{name}.lora_up.weight"] * factor
    return back


def diffusers_reads(weights: Mapping[str, Tensor]) -> bool:
    """Whether diffusers makes of this file what was written."""
    return not any(key.endswith(".dora_scale") or re.search(r"(in|out)put_blocks_\d\d", key) for key in weights)


def folded(tensors: Mapping[str, Tensor], configs: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        key: tensor * scale(configs, split(key)[0]) if key.endswith("lora_B.weight") else tensor
        for key, tensor in tensors.items()
    }


def scale(configs: Mapping[str, Any], network: str) -> float:
    """What up @ down is multiplied by; rsLoRA divides alpha by the root of the rank."""
    rank, alpha = configs[f"{network}.r"], configs[f"{network}.lora_alpha"]
    return float(alpha / math.sqrt(rank) if configs[f"{network}.use_rslora"] else alpha / rank)


def split(key: str) -> tuple[str, str, str]:
    """ "unet.mid_block.attentions.0.proj_in.lora_A.weight" into network, module path and part."""
    network, _, rest = key.partition(".")
    for part in (*PARTS, f"{MAGNITUDE}.weight", MAGNITUDE):
        if rest.endswith(f".{part}"):
            return network, rest.removesuffix(f".{part}"), part.removesuffix(".weight") if MAGNITUDE in part else part
    raise ValueError(f"not a part of a LoRA layer: {key}")


def dimensions(tensors: Mapping[str, Tensor], magnitude_key: str) -> int:
    return tensors[re.sub(rf"{MAGNITUDE}(\.weight)?$", "lora_B.weight", magnitude_key)].ndim


def layer_name(network: str, path: str, family: FamilyName, layers_per_block: int) -> str:
    """Of a family whose names are shared."""
    facts = family_facts(family)
    if network == "unet":
        named = first_publication(path, layers_per_block) if facts.kohya and facts.kohya.original else path
        return "lora_unet_" + named.replace(".", "_")
    (prefix,) = (encoder.kohya for encoder in facts.text_encoders if encoder.component == network)
    return f"{prefix}_{path.replace('.', '_')}"


RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def first_publication(path: str, layers: int) -> str:
    """A UNet module's name in Stability's own code, from diffusers'.

    Its blocks are counted through: an input block for each layer and one for each downsampling, after a first for
    conv_in; an output block for each layer, upsampling being the last part of a level's last.
    """
    if path in OUTSIDE:
        return OUTSIDE[path]
    match = re.fullmatch(
        r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", path
    )
    if match:
        side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{(level + 1) * (layers + 1) - 1}.2.{rest}"
        block = 1 + level * (layers + 1) + index if side == "down_blocks" else level * (layers + 1) + index
        part = 0 if kind == "resnets" else 1
        return f"{'input' if side == 'down_blocks' else 'output'}_blocks.{block}.{part}.{RESNET.get(rest, rest)}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path)
    if match:
        part = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{part}.{RESNET.get(match[3], match[3])}"
    raise ValueError(f"a UNet module without a name in the first publication: {path}")
