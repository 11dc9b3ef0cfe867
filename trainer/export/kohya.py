"""The adapter in the format that ComfyUI, Forge, AUTOMATIC1111 and kohya's sd-scripts share.

A layer is ``<prefix>_<module path with underscores>`` with ``lora_down.weight``, ``lora_up.weight``, ``alpha`` (the
update is up @ down * alpha / rank) and, for DoRA, ``dora_scale``. Prefixes: ``lora_unet``; ``lora_te`` for SD 1.x and
2.x, ``lora_te1`` and ``lora_te2`` for SDXL. SDXL's UNet goes by the names of the model's first publication
(input_blocks, middle_block, output_blocks), as sd-scripts trains it, SD 1.x's and 2.x's by those of diffusers.

Alpha is the run's own, so that a program which trains on starts with the same scale.

``dora_scale``, (out, 1), is for ComfyUI and Forge: they compute W' = dora_scale * (W + dW) / |W| by row, DoRA
m * (W + dW) / |W + dW|, so each magnitude m is multiplied by |W| / |W + dW|. ``trainer.export.readers`` says which
programs read what.

SD3 has no names that these programs share: its file keeps diffusers' (``transformer.`` ...), which ComfyUI reads too,
with the scale in the weights and without alpha.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.spec.family_facts import FamilyName, family_facts

PARTS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
MAGNITUDE = "lora_magnitude_vector"


def kohya_weights(
    tensors: Mapping[str, Tensor],
    scales: Mapping[str, float],
    norm_ratios: Mapping[str, Tensor],
    family: FamilyName,
    layers_per_block: int,
) -> dict[str, Tensor]:
    """From the tensors of diffusers' file, whose scale is in its weights.

    ``scales`` are the run's, by network; ``norm_ratios`` those of ``trainer.families.lora``. ``layers_per_block`` is
    the UNet's; of no matter for SD3.
    """
    shared_names = family_facts(family).kohya is not None
    converted: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        network, path, part = split(key)
        name = layer_name(network, path, family, layers_per_block) if shared_names else f"{network}.{path}"
        if part == MAGNITUDE:
            scaled = tensor.flatten() * norm_ratios[f"{network}.{path}"]
            converted[f"{name}.dora_scale"] = scaled.reshape(-1, *[1] * (dimensions(tensors, key) - 1))
        elif not shared_names:
            converted[key] = tensor
        elif part == "lora_A.weight":
            converted[f"{name}.{PARTS[part]}"] = tensor
            converted[f"{name}.alpha"] = torch.tensor(scales[network] * tensor.shape[0])
        else:
            converted[f"{name}.{PARTS[part]}"] = tensor / scales[network]
    return converted


def diffusers_weights(
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    norm_ratios: Mapping[str, Tensor],
    family: FamilyName,
    layers: int,
) -> dict[str, Tensor]:
    """The way back, to the keys and shapes of ``wanted``, whose scale is in its weights."""
    shared_names = family_facts(family).kohya is not None
    back: dict[str, Tensor] = {}
    for key, tensor in wanted.items():
        network, path, part = split(key)
        name = layer_name(network, path, family, layers) if shared_names else f"{network}.{path}"
        if part == MAGNITUDE:
            magnitude = weights[f"{name}.dora_scale"].flatten() / norm_ratios[f"{network}.{path}"]
            back[key] = magnitude.reshape(tensor.shape)
        elif not shared_names:
            back[key] = weights[key]
        else:
            down = weights[f"{name}.lora_down.weight"]
            factor = weights[f"{name}.alpha"].item() / down.shape[0]
            back[key] = down if part == "lora_A.weight" else weights[f"{name}.lora_up.weight"] * factor
    return back


def diffusers_reads(weights: Mapping[str, Tensor]) -> bool:
    """Whether diffusers makes of this file what was written."""
    return not any(key.endswith(".dora_scale") or re.search(r"(in|out)put_blocks_\d\d", key) for key in weights)


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
