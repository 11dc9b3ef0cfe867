"""Adapters as they begin: their scale, their rank, their seed, and what they are on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer

from trainer.families.lora import ADAPTER_FILE, ATTENTION, add_lora, lora_config, save_lora, without_lora
from trainer.run_directory.output import adapter_metadata
from trainer.spec.run import Adapter

pytestmark = pytest.mark.unit


def network() -> Any:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
        cross_attention_dim=8,
    )
    return unet.requires_grad_(False).eval()


def added(adapter: dict[str, Any], seed: int = 1) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    unet = network()
    return unet, add_lora(unet, lora_config(Adapter.model_validate(adapter), ATTENTION), seed=seed)


def layers(unet: Any) -> dict[str, Any]:
    return {name: module for name, module in unet.named_modules() if isinstance(module, LoraLayer)}


@pytest.mark.parametrize(
    ("adapter", "scale"),
    [
        ({"rank": 4}, 1.0),
        ({"rank": 4, "alpha": 8}, 2.0),
        ({"rank": 4, "alpha": 1}, 0.25),
        ({"rank": 4, "type": "rslora"}, 2.0),
        ({"rank": 16, "alpha": 6, "type": "rslora"}, 1.5),
        ({"rank": 4, "alpha": 8, "type": "dora"}, 2.0),
    ],
)
def test_an_update_is_scaled_by_alpha_over_the_rank_or_its_root(adapter: dict[str, Any], scale: float) -> None:
    unet, _ = added(adapter)
    assert {layer.scaling["default"] for layer in layers(unet).values()} == {scale}
    name, layer = next((name, layer) for name, layer in layers(unet).items() if name.endswith("attn1.to_q"))
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (down.shape, up.shape) == ((adapter["rank"], 8), (8, adapter["rank"]))
    if adapter.get("type") != "dora":
        with torch.no_grad():
            up.copy_(torch.randn(up.shape))
            inputs = torch.randn(3, 8)
            change = layer(inputs) - network().get_submodule(name)(inputs)
        torch.testing.assert_close(change, scale * inputs @ down.T @ up.T)


@pytest.mark.parametrize(("kind", "has_magnitudes"), [("lora", False), ("rslora", False), ("dora", True)])
def test_dora_alone_has_magnitudes(kind: str, has_magnitudes: bool) -> None:
    _, parameters = added({"rank": 4, "type": kind})
    assert any("magnitude" in name for name in parameters) is has_magnitudes


def test_an_adapter_begins_as_nothing_and_the_same_for_its_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (added({"rank": 4}, seed)[1] for seed in (1, 1, 2))
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in first.items():
        assert torch.equal(parameter, again[name])
        if "lora_B" in name:
            assert not parameter.any()
        else:
            assert not torch.isclose(parameter, other[name]).any()
            assert parameter.std().item() == pytest.approx(1 / 4, rel=0.5)  # of a normal distribution over the rank


def test_adding_an_adapter_leaves_the_global_generator_alone() -> None:
    unet = network()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    add_lora(unet, lora_config(Adapter(rank=4), ATTENTION), seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_the_adapter_alone_is_trained_and_in_fp32_on_any_base() -> None:
    unet = network().to(torch.bfloat16)
    parameters = add_lora(unet, lora_config(Adapter(rank=4), ATTENTION), seed=1)
    assert {id(p) for p in unet.parameters() if p.requires_grad} == {id(p) for p in parameters.values()}
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    assert all("lora_" in name for name in parameters)
    assert not any(module.training for module in unet.modules())


def test_an_adapter_is_on_the_attention_or_where_the_spec_says() -> None:
    assert {name.rpartition("attn")[2][2:] for name in layers(added({"rank": 2})[0])} == set(ATTENTION)
    assert {name.rpartition(".")[2] for name in layers(added({"rank": 2, "target_modules": ["to_v"]})[0])} == {"to_v"}


def test_dropout_has_the_rate_that_was_requested() -> None:
    unet, _ = added({"rank": 2, "dropout": 0.3})
    assert {layer.lora_dropout["default"].p for layer in layers(unet).values()} == {0.3}


def test_switched_off_the_network_is_the_base() -> None:
    unet, parameters = added({"rank": 4})
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.5)
        given = torch.randn(1, 4, 8, 8), 500, torch.randn(1, 3, 8)
        base = network()(*given).sample
        assert not torch.allclose(unet(*given).sample, base, atol=1e-3)
        with without_lora(unet):
            torch.testing.assert_close(unet(*given).sample, base)
        assert not torch.allclose(unet(*given).sample, base, atol=1e-3)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_files_header_has_what_every_peft_since_0_15_knows_and_alpha_is_the_rank(tmp_path: Path, kind: str) -> None:
    """diffusers passes each field to the installed PEFT's LoraConfig, which raises an error for a later one."""
    unet, _ = added({"rank": 4, "alpha": 6, "type": kind})
    save_lora(tmp_path / ADAPTER_FILE, {"unet": unet}, {})
    config = json.loads(adapter_metadata(tmp_path / ADAPTER_FILE)["lora_adapter_metadata"])
    assert {name.removeprefix("unet.") for name in config} == {
        "r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "peft_type",
        "bias", "lora_bias", "lora_dropout",
    }  # fmt: skip
    assert (config["unet.r"], config["unet.lora_alpha"], config["unet.use_rslora"]) == (4, 4, False)
    assert config["unet.use_dora"] is (kind == "dora")
