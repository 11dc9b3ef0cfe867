"""The second file, computed with as each program does, is the trained network.

ComfyUI and Forge: W' = dora_scale * (W + dW) / |W| by row where there is a dora_scale, W + dW where not, dW being
up @ down * alpha / rank, with alpha = rank where the file has none. The others that the card names: W + dW.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.export.test_kohya import trained, write_both
from tests.trainer.families.bases import SAVE_BASE
from trainer.cache.cache import Cache
from trainer.export.kohya import layer_name
from trainer.families.lora import published
from trainer.spec.family_facts import FamilyName, family_facts
from trainer.spec.run import Adapter

pytestmark = [pytest.mark.integration, pytest.mark.slow]
WIDE = ["to_q", "to_k", "to_out.0", "ff.net.2", "conv1", "conv_shortcut", "proj_in"]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"type": "rslora"},
    "dora": {"type": "dora"},
    "text": {"type": "dora", "text_encoder": {"rank": 2}},
    "wide": {"type": "dora", "target_modules": WIDE},
}
CASES = [(family, kind) for family in SAVE_BASE for kind in KINDS if family != "sd3" or kind not in ("text", "wide")]


def by_comfyui(weight: Tensor, layer: str, file: dict[str, Tensor]) -> Tensor:
    """``weight`` (out, ...); the read parts of the file are taken out of it."""
    up, down = (
        next(file.pop(name) for name in (f"{layer}.{new}", f"{layer}.{old}") if name in file)
        for new, old in (("lora_up.weight", "lora_B.weight"), ("lora_down.weight", "lora_A.weight"))
    )
    alpha = file.pop(f"{layer}.alpha", torch.tensor(float(down.shape[0]))).item()
    changed: Tensor = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) * (alpha / down.shape[0])
    magnitude: Tensor | None = file.pop(f"{layer}.dora_scale", None)
    if magnitude is not None:
        assert magnitude.shape == (weight.shape[0], *[1] * (weight.ndim - 1))
        changed = changed * (magnitude / weight.flatten(1).norm(dim=1).reshape(magnitude.shape))
    return changed


def as_trained(layer: Any) -> Tensor:
    """By the papers of LoRA and DoRA."""
    (name,) = layer.lora_A.keys()
    base = layer.get_base_layer().weight
    up, down = layer.lora_B[name].weight, layer.lora_A[name].weight
    changed: Tensor = base + layer.scaling[name] * (up.flatten(1) @ down.flatten(1)).reshape(base.shape)
    if not layer.lora_magnitude_vector:
        return changed
    magnitude: Tensor = layer.lora_magnitude_vector[name].weight.flatten() / changed.flatten(1).norm(dim=1)
    return changed * magnitude.reshape(-1, *[1] * (base.ndim - 1))


@pytest.mark.parametrize(("family", "kind"), CASES)
@torch.no_grad()
def test_the_programs_that_the_card_names_get_the_trained_weights(
    tmp_path: Path, family: FamilyName, kind: str
) -> None:
    adapter = Adapter.model_validate({"rank": 4, "alpha": 6, **KINDS[kind]})
    denoiser, _ = trained(SAVE_BASE[family](tmp_path / "base"), family, adapter, Cache(tmp_path / "cache"))
    file = load_file(write_both(tmp_path, denoiser, family)[1])
    per_block = getattr(denoiser.network.config, "layers_per_block", 0)
    for network, module in denoiser.adapted.items():
        for name, layer in module.named_modules():
            if isinstance(layer, LoraLayer):
                path = published(network, name)
                shared = family_facts(family).kohya is not None
                key = layer_name(network, path, family, per_block) if shared else f"{network}.{path}"
                base, wanted = layer.get_base_layer().weight, as_trained(layer)
                read = by_comfyui(base, key, file)
                assert (read - wanted).norm() <= 1e-5 * (wanted - base).norm(), name
    assert file == {}  # nothing is left that it would drop


@pytest.mark.parametrize("kind", ["lora", "rslora"])
@torch.no_grad()
def test_a_reader_that_knows_no_alpha_gets_the_trained_weights_from_the_first_file(tmp_path: Path, kind: str) -> None:
    adapter = Adapter.model_validate({"rank": 4, "alpha": 6, "type": kind})
    denoiser, _ = trained(SAVE_BASE["sdxl"](tmp_path / "base"), "sdxl", adapter, Cache(tmp_path / "cache"))
    file = load_file(write_both(tmp_path, denoiser, "sdxl")[0])
    for name, layer in denoiser.network.named_modules():
        if isinstance(layer, LoraLayer):
            up, down = (file[f"unet.{name}.lora_{part}.weight"] for part in "BA")
            base = layer.get_base_layer().weight
            torch.testing.assert_close(base + up @ down, as_trained(layer), rtol=1e-5, atol=1e-6)
