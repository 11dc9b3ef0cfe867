"""Each program that the model card names knows every layer of the file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.readers.architectures import denoiser_layers, text_layers
from trainer.export.kohya import kohya_weights
from trainer.export.readers import READERS, readers_of
from trainer.families.lora import ATTENTION
from trainer.families.sd3 import TARGETS
from trainer.spec.family_facts import FAMILIES, FamilyName, family_facts
from trainer.spec.run import RunSpec

pytestmark = [pytest.mark.unit, pytest.mark.slow]
WIDE = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2"]
TIME = ["time_emb_proj", "conv_shortcut", "conv"]
OUTSIDE = ["conv_in", "conv_out", "linear_1", "linear_2"]
LAYERS: dict[str, dict[str, Any]] = {
    "default": {},
    "text": {"text_encoder": {}},
    "attn1 alone": {"target_modules": ["attn1.to_q", "attn1.to_v"]},
    "wide": {"target_modules": WIDE + TIME},
    "everything": {"target_modules": WIDE + TIME + OUTSIDE},
}
SD3_LAYERS: dict[str, dict[str, Any]] = {
    "default": {},
    "wide": {"target_modules": ["to_q", "to_out.0", "ff.net.2", "ff_context.net.0.proj", "linear", "proj_out"]},
}
CASES = [
    (family, layers, case)
    for family in FAMILIES
    for layers, case in (SD3_LAYERS if family == "sd3" else LAYERS).items()
]


@cache
def known(family: FamilyName) -> dict[str, frozenset[str]]:
    """The layers that each program knows, from our list."""
    text = (Path(__file__).parent / "keys" / f"{family}.txt").read_text()
    rows = [(name, programs.split()) for name, _, programs in (line.partition(" ") for line in text.splitlines())]
    return {program: frozenset(name for name, programs in rows if program in programs) for program in READERS}


modules = cache(denoiser_layers)


def written(spec: RunSpec) -> set[str]:
    """The layers of the second file of a run at full size, with DoRA's magnitudes."""
    family = spec.base.family
    auto = TARGETS if family == "sd3" else ATTENTION
    targets = auto if spec.adapter.target_modules == "auto" else spec.adapter.target_modules
    reached = [name for name in modules(family) if any(name == one or name.endswith(f".{one}") for one in targets)]
    networks: dict[str, list[str]] = {family_facts(family).denoiser: reached}
    networks |= text_layers(family) if spec.adapter.text_encoder else {}
    parts = {"lora_A.weight": torch.zeros(1, 1), "lora_B.weight": torch.zeros(1, 1)}
    parts |= {"lora_magnitude_vector": torch.zeros(1)} if spec.adapter.type == "dora" else {}
    paths = [f"{network}.{path}" for network, layers in networks.items() for path in layers]
    tensors = {f"{path}.{part}": tensor for path in paths for part, tensor in parts.items()}
    ratios = dict.fromkeys(paths, torch.ones(1))
    keys = kohya_weights(tensors, dict.fromkeys(networks, 1.0), ratios, family, layers_per_block=2)
    suffixes = ("lora_up.weight", "lora_down.weight", "lora_A.weight", "lora_B.weight", "alpha", "dora_scale")
    layers = set()
    for key in keys:
        (suffix,) = (one for one in suffixes if key.endswith(f".{one}"))
        layers.add(key.removesuffix(f".{suffix}"))
    assert len(layers) == len(paths)
    return layers


def spec(family: FamilyName, adapter: dict[str, Any], kind: str = "lora") -> RunSpec:
    base = {"name": "b", "family": family, "source": "someone/b", "revision": "abc"}
    document = {"base": base, "method": {"type": "sft"}, "name": "mine", "adapter": adapter | {"type": kind}}
    return RunSpec.model_validate(document)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(("family", "layers", "adapter"), CASES)
def test_a_program_that_the_card_names_has_every_layer(
    family: FamilyName, layers: str, adapter: dict[str, Any], kind: str
) -> None:
    run = spec(family, adapter, kind)
    named = readers_of(run)
    assert "comfyui" in named
    file = written(run)
    for program in named:
        assert sorted(file - known(family)[program]) == [], program


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_sd_scripts_is_left_out_because_it_would_drop_layers(family: FamilyName) -> None:
    run = spec(family, LAYERS["everything"])
    dropped = written(run) - known(family)["sd-scripts"]
    assert len(dropped) == (6 if family == "sdxl" else 4)
    assert "sd-scripts" not in readers_of(run)
