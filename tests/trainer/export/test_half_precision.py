"""Verifying files on bases in half precision and int8, with predictions as large as real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer.export.test_kohya import trained, write_both
from tests.trainer.families.bases import SAVE_BASE
from trainer.cache.cache import Cache
from trainer.data.batches import Batch
from trainer.export.verify import cast_adapter, require_same_adapter
from trainer.families.family import Denoiser
from trainer.families.sdxl import SdxlDenoiser
from trainer.runtime.errors import ExportMismatch
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Adapter

pytestmark = pytest.mark.integration


def predict_at_real_size(denoiser: Denoiser, batch: Batch) -> None:
    """Predictions have the deviation of real velocities, 1.4, where a rounding step of bf16 is up to 0.03."""
    network: Any = denoiser.network
    last = network.proj_out if hasattr(network, "proj_out") else network.conv_out
    with torch.no_grad():
        prediction = denoiser.predict(batch.noise, batch.timesteps, denoiser.condition(batch.prompt), batch.size_ids)
        for parameter in last.parameters():
            parameter.mul_(1.4 / prediction.std())


HALF = {
    "lora": {"rank": 8, "alpha": 6},
    "rslora": {"type": "rslora", "rank": 8},
    "dora": {"type": "dora", "rank": 8, "alpha": 6},
}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", SAVE_BASE)
@pytest.mark.parametrize("kind", HALF)
def test_rounding_to_half_precision_is_no_mismatch_and_a_wrong_layer_is(
    tmp_path: Path, family: FamilyName, kind: str, precision: str
) -> None:
    """SD3's second file has the scale in its weights, which bf16 rounds to others than the scaled ones."""
    adapter = Adapter.model_validate(HALF[kind])
    base, cache = SAVE_BASE[family](tmp_path / "base"), Cache(tmp_path / "cache")
    denoiser, batch = trained(base, family, adapter, cache, precision=precision)
    predict_at_real_size(denoiser, batch)
    files = write_both(tmp_path, denoiser, family)
    require_same_adapter(denoiser, tmp_path, "named.safetensors", family, batch)
    tensors = load_file(files[1])
    name = next(name for name in tensors if name.endswith(("lora_up.weight", "lora_B.weight")))
    save_file(tensors | {name: tensors[name] * 1.05}, files[1], {"format": "pt"})
    with pytest.raises(ExportMismatch, match="named"):
        require_same_adapter(denoiser, tmp_path, "named.safetensors", family, batch)


def test_files_are_compared_by_the_arithmetic_that_trained_them(tmp_path: Path, tiny_base: Path) -> None:
    """PEFT's layers round elsewhere: a right file then changed a prediction in bf16 by 1.1% of its size."""
    denoiser, batch = trained(tiny_base, "sdxl", Adapter(rank=8), Cache(tmp_path / "cache"), precision="bf16")
    predict_at_real_size(denoiser, batch)
    write_both(tmp_path, denoiser, "sdxl")
    cast_adapter(denoiser)
    with torch.no_grad():
        inputs = batch.noise, batch.timesteps, denoiser.condition(batch.prompt), batch.size_ids
        trained_prediction = denoiser.predict(*inputs)
        require_same_adapter(denoiser, tmp_path, "named.safetensors", "sdxl", batch)
        assert denoiser.predict(*inputs).equal(trained_prediction)


class Int8Linear(torch.nn.Linear):
    """Like bitsandbytes' layer on an int8 base: its weight is of no floating type, which PEFT could follow."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, dtype=layer.weight.dtype)
        self.scale = layer.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        whole = (layer.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(whole, requires_grad=False)
        self.bias = layer.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(inputs, self.weight.to(inputs.dtype) * self.scale, self.bias)


def test_an_adapter_on_an_int8_base_is_compared_in_the_precision_that_it_is_used_in(
    tmp_path: Path, tiny_base: Path
) -> None:
    adapter, cache = Adapter(rank=8, alpha=6), Cache(tmp_path / "cache")
    loaded, batch = trained(tiny_base, "sdxl", adapter, cache, precision="bf16")
    network: Any = loaded.network
    network.unload_lora()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and name in ("to_q", "to_k", "to_v", "0"):
                setattr(module, name, Int8Linear(child))
    generator = torch.Generator().manual_seed(1)
    for parameter in loaded.add_adapter(adapter, seed=0).values():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 5
    predict_at_real_size(loaded, batch)
    write_both(tmp_path, loaded, "sdxl")
    precisions: list[set[torch.dtype]] = []

    @dataclass(frozen=True)
    class Watched(SdxlDenoiser):
        def predict(self, *inputs: Any) -> torch.Tensor:
            precisions.append({p.dtype for name, p in self.network.named_parameters() if "lora_" in name})
            return super().predict(*inputs)

    watched = Watched(**{name: getattr(loaded, name) for name in loaded.__dataclass_fields__})  # type: ignore[attr-defined]
    require_same_adapter(watched, tmp_path, "named.safetensors", "sdxl", batch)
    assert precisions == [{torch.bfloat16}] * 3
