"""The second format: names as others know them, scales that need no context, and a round trip through diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tests.trainer.families.bases import SAVE_BASE
from trainer.batches import Batch
from trainer.cache import Cache
from trainer.encoding import new_encoder
from trainer.errors import ExportMismatch
from trainer.export import require_same_predictions
from trainer.families import open_family
from trainer.families.family import Denoiser
from trainer.families.kohya import first_publication, kohya_weights, layer_name, scale
from trainer.interrupt import StopRequest
from trainer.output import adapter_metadata
from trainer.spec.methods import SftMethod
from trainer.spec.run import Adapter, Base, FamilyName, RunSpec

CPU = torch.device("cpu")
SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.mark.unit
def test_sdxls_modules_have_the_names_that_sd_scripts_trains() -> None:
    """Of its 70 transformer blocks: two input blocks each of 2 and of 10, the middle's 10, three output blocks each."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL)
    names = [name for name, _ in unet.named_modules() if name.endswith("attn1.to_q")]
    kohya = [layer_name("unet", name, "sdxl", layers_per_block=2) for name in names]
    assert len(set(kohya)) == 70
    blocks: dict[str, int] = {}
    for name in kohya:
        block = name.partition("_transformer_blocks_")[0]
        blocks[block] = blocks.get(block, 0) + 1
    inputs = {"input_blocks_4_1": 2, "input_blocks_5_1": 2, "input_blocks_7_1": 10, "input_blocks_8_1": 10}
    outputs = {f"output_blocks_{block}_1": 10 if block < 3 else 2 for block in range(6)}
    assert blocks == {f"lora_unet_{name}": count for name, count in (inputs | {"middle_block_1": 10} | outputs).items()}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.2.conv_shortcut", "output_blocks.8.0.skip_connection"),
    ],
)
def test_modules_beside_the_transformers_are_named_too(ours: str, theirs: str) -> None:
    assert first_publication(ours, layers=2) == theirs


@pytest.mark.unit
def test_text_encoders_are_numbered_where_there_are_two() -> None:
    path = "text_model.encoder.layers.0.self_attn.q_proj"
    flat = path.replace(".", "_")
    assert layer_name("text_encoder", path, "sd1", 2) == f"lora_te_{flat}"
    assert layer_name("text_encoder", path, "sdxl", 2) == f"lora_te1_{flat}"
    assert layer_name("text_encoder_2", path, "sdxl", 2) == f"lora_te2_{flat}"


@pytest.mark.unit
def test_rank_stabilised_scales_become_alphas_of_the_plain_rule() -> None:
    configs = {"unet.r": 16, "unet.lora_alpha": 8, "unet.use_rslora": True}
    assert scale(configs, "unet") == 2.0
    tensors = {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(16, 4),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.zeros(4, 16),
    }
    weights = kohya_weights(tensors, configs, "sdxl", 2)
    assert weights["lora_unet_middle_block_1_proj_in.alpha"] == 2.0 * 16
    plain = kohya_weights(tensors, configs | {"unet.use_rslora": False}, "sdxl", 2)
    assert plain["lora_unet_middle_block_1_proj_in.alpha"] == 8


def trained(base: Path, family: FamilyName, adapter: Adapter, cache: Cache) -> tuple[Denoiser, Batch]:
    """An adapter with random weights, and something to look at."""
    opened = open_family(Base(name="tiny", family=family, source=str(base)))
    encoder = new_encoder(opened, cache, "auto")
    encoder.encode(["a cat"], [], device=CPU, stop=StopRequest(), progress=lambda *_: None)
    denoiser = opened.load_denoiser(CPU)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in denoiser.add_adapter(adapter, seed=0).items():
        if "magnitude" in name:
            parameter.data = parameter.data * (0.5 + torch.rand(parameter.shape, generator=generator))
        else:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 5
    shape = opened.load_decoder(CPU).latent_shape(encoder.native)
    prompt = {name: tensor[None] for name, tensor in cache.read(encoder.prompt_key("a cat")).items()}
    noise = torch.randn(1, *shape, generator=generator)
    return denoiser, Batch(("p",), noise, noise, torch.tensor([500.0]), prompt, torch.full((1, 6), 32.0))


def spec(family: FamilyName, adapter: Adapter) -> RunSpec:
    base = Base(name="tiny", family=family, source="nowhere")
    return RunSpec(base=base, method=SftMethod(type="sft"), adapter=adapter)


def write_both(folder: Path, denoiser: Denoiser, family: FamilyName) -> list[Path]:
    first, second = folder / "pytorch_lora_weights.safetensors", folder / "named.safetensors"
    denoiser.save_adapter(first, {})
    configs: dict[str, Any] = json.loads(adapter_metadata(first)["lora_adapter_metadata"])
    layers = getattr(denoiser.network.config, "layers_per_block", 0)
    weights = kohya_weights(load_file(first), configs, family, layers)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, second, {"format": "pt"})
    return [first, second]


@pytest.mark.integration
@pytest.mark.parametrize("family", SAVE_BASE)
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_both_files_load_in_diffusers_as_the_trained_network(tmp_path: Path, family: FamilyName, kind: str) -> None:
    adapter = Adapter.model_validate({"type": kind, "rank": 4, "alpha": 6})
    denoiser, batch = trained(SAVE_BASE[family](tmp_path / "base"), family, adapter, Cache(tmp_path / "cache"))
    write_both(tmp_path, denoiser, family)
    require_same_predictions(denoiser, tmp_path, "named.safetensors", spec(family, adapter), batch)


@pytest.mark.integration
@pytest.mark.parametrize("damaged", [0, 1])
def test_a_file_that_is_another_adapter_is_found_out(tmp_path: Path, tiny_base: Path, damaged: int) -> None:
    denoiser, batch = trained(tiny_base, "sdxl", Adapter(rank=4), Cache(tmp_path / "cache"))
    files = write_both(tmp_path, denoiser, "sdxl")
    tensors = load_file(files[damaged])
    name = next(name for name in tensors if name.endswith(("lora_B.weight", "lora_up.weight")))
    metadata = adapter_metadata(files[damaged])
    save_file(tensors | {name: tensors[name] * 1.5}, files[damaged], metadata)
    with pytest.raises(ExportMismatch, match=files[damaged].name):
        require_same_predictions(denoiser, tmp_path, "named.safetensors", spec("sdxl", Adapter(rank=4)), batch)


@pytest.mark.integration
def test_a_wrong_alpha_is_found_out(tmp_path: Path, tiny_base: Path) -> None:
    denoiser, batch = trained(tiny_base, "sdxl", Adapter(rank=4), Cache(tmp_path / "cache"))
    files = write_both(tmp_path, denoiser, "sdxl")
    tensors = load_file(files[1])
    save_file({n: t * 2 if n.endswith(".alpha") else t for n, t in tensors.items()}, files[1], {"format": "pt"})
    with pytest.raises(ExportMismatch, match="named"):
        require_same_predictions(denoiser, tmp_path, "named.safetensors", spec("sdxl", Adapter(rank=4)), batch)
