"""Which programs read the second adapter file: what the model card says, and tests/readers checks.

A program has a row only for what its loader takes whole. The others take a part of the file, or compute another
network from it, most of them without a message:

- DoRA: AUTOMATIC1111 and InvokeAI divide by the norms of columns, sd-scripts and diffusers pass over ``dora_scale``,
  and OneTrainer divides by |W + dW|, where this file is made for a division by |W| (``trainer.export.kohya``).
- SD3: InvokeAI takes it for a LoRA of Qwen-Image; Forge's table of names is off; AUTOMATIC1111 has half the names.
- diffusers needs no second file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.spec.family_facts import FamilyName
from trainer.spec.run import RunSpec

UNETS: tuple[FamilyName, ...] = ("sd1", "sd2", "sdxl")
# Layers that sd-scripts makes no module for: it drops their keys.
OUTSIDE_SD_SCRIPTS = (
    "conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2", "add_embedding.linear_1",
    "add_embedding.linear_2",
)  # fmt: skip
# By the width of one of these InvokeAI recognises the family.
CROSS_ATTENTION = tuple(f"down_blocks.1.attentions.0.transformer_blocks.0.attn2.{name}" for name in ("to_k", "to_v"))


@dataclass(frozen=True)
class Reader:
    """``version`` was tried: a release or a commit. ``takes`` says whether it has every layer of a run's adapter."""

    title: str
    version: str
    how: str
    families: tuple[FamilyName, ...]
    dora: bool
    takes: Callable[[RunSpec], bool] = lambda _: True


def trains(spec: RunSpec, layers: Sequence[str]) -> bool:
    """Whether the run's targets reach one of these; the default ones are attention, which reaches cross-attention."""
    targets = spec.adapter.target_modules
    if targets == "auto":
        return any(".attn" in layer for layer in layers)
    return any(layer == target or layer.endswith(f".{target}") for layer in layers for target in targets)


READERS: dict[str, Reader] = {
    "comfyui": Reader("ComfyUI", "0.3.64", "into `models/loras`, strength 1", (*UNETS, "sd3"), dora=True),
    "forge": Reader("Forge", "dfdcbab6", "into `models/Lora`, weight 1", UNETS, dora=True),
    "automatic1111": Reader("AUTOMATIC1111", "1.10.1", "into `models/Lora`, weight 1", UNETS, dora=False),
    "sd-scripts": Reader(
        "sd-scripts",
        "48d368fa",
        "`--network_weights`, to train on",
        UNETS,
        dora=False,
        takes=lambda spec: not trains(spec, OUTSIDE_SD_SCRIPTS),
    ),
    "invokeai": Reader(
        "InvokeAI",
        "6.14.2",
        "by the model manager",
        UNETS,
        dora=False,
        takes=lambda spec: trains(spec, CROSS_ATTENTION),
    ),
    "onetrainer": Reader(
        "OneTrainer",
        "23df3832",
        'as the LoRA to train on, layer filter "attn"',
        UNETS,
        dora=False,
        takes=lambda spec: spec.adapter.target_modules == "auto" and spec.adapter.text_encoder is None,
    ),
}
# diffusers with PEFT; the first file loads in each as it was trained.
DIFFUSERS_TRIED = ("0.33.1 (peft 0.15.2)", "0.34.0 (0.15.2)", "0.36.0 (0.18.1)", "0.42.1 (0.21.2)")


def readers_of(spec: RunSpec) -> dict[str, Reader]:
    return {
        name: reader
        for name, reader in READERS.items()
        if spec.base.family in reader.families and (reader.dora or spec.adapter.type != "dora") and reader.takes(spec)
    }
