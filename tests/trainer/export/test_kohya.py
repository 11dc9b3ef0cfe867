"""The second format: names as others know them, scales that need no context, and a round trip through diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from benchmarks.trainer.traffic import SDXL
from tests.trainer.families.bases import SAVE_BASE
from trainer.cache.cache import Cache
from trainer.data.batches import Batch
from trainer.data.encoding import new_encoder
from trainer.export.export import write_kohya
from trainer.export.kohya import diffusers_reads, diffusers_weights, first_publication, kohya_weights, layer_name
from trainer.export.verify import require_same_adapter
from trainer.families import open_family
from trainer.families.family import Denoiser
from trainer.families.lora import save_lora, scales
from trainer.run_directory.output import adapter_metadata
from trainer.runtime.errors import ExportMismatch
from trainer.runtime.signals import StopRequest
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Adapter, Base, Compute

CPU = torch.device("cpu")


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
def test_modules_next_to_the_transformers_are_named_too(ours: str, theirs: str) -> None:
    assert first_publication(ours, layers=2) == theirs


@pytest.mark.unit
def test_text_encoders_are_numbered_where_there_are_two() -> None:
    path = "text_model.encoder.layers.0.self_attn.q_proj"
    flat = path.replace(".", "_")
    assert layer_name("text_encoder", path, "sd1", 2) == f"lora_te_{flat}"
    assert layer_name("text_encoder", path, "sdxl", 2) == f"lora_te1_{flat}"
    assert layer_name("text_encoder_2", path, "sdxl", 2) == f"lora_te2_{flat}"


@pytest.mark.unit
def test_alpha_divided_by_the_rank_is_the_runs_scale() -> None:
    """Of weights that hold the scale already: up is smaller by as much."""
    tensors = {
        "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(16, 4),
        "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(4, 16),
    }
    weights = kohya_weights(tensors, {"unet": 2.0}, {}, "sdxl", 2)
    assert weights["lora_unet_middle_block_1_proj_in.alpha"] == 2.0 * 16
    assert torch.equal(weights["lora_unet_middle_block_1_proj_in.lora_up.weight"], torch.full((4, 16), 0.5))


def trained(
    base: Path, family: FamilyName, adapter: Adapter, cache: Cache, *, precision: str = "fp32"
) -> tuple[Denoiser, Batch]:
    """An adapter with random weights, and something to look at."""
    compute = Compute.model_validate({"base_precision": precision})
    opened = open_family(Base(name="tiny", family=family, source=str(base)), adapter, compute)
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


def write_both(folder: Path, denoiser: Denoiser, family: FamilyName) -> list[Path]:
    first, second = folder / "pytorch_lora_weights.safetensors", folder / "named.safetensors"
    denoiser.save_adapter(first, {})
    write_kohya(folder, second.name, family, denoiser, {"format": "pt"})
    return [first, second]


@pytest.mark.integration
@pytest.mark.parametrize("family", SAVE_BASE)
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_both_files_load_in_diffusers_as_the_trained_network(tmp_path: Path, family: FamilyName, kind: str) -> None:
    adapter = Adapter.model_validate({"type": kind, "rank": 4, "alpha": 6})
    denoiser, batch = trained(SAVE_BASE[family](tmp_path / "base"), family, adapter, Cache(tmp_path / "cache"))
    write_both(tmp_path, denoiser, family)
    require_same_adapter(denoiser, tmp_path, "named.safetensors", family, batch)


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
        require_same_adapter(denoiser, tmp_path, "named.safetensors", "sdxl", batch)


@pytest.mark.integration
@pytest.mark.parametrize("damaged", [0, 1])
def test_a_file_with_values_that_are_no_numbers_is_found_out(tmp_path: Path, tiny_base: Path, damaged: int) -> None:
    denoiser, batch = trained(tiny_base, "sdxl", Adapter(rank=4), Cache(tmp_path / "cache"))
    files = write_both(tmp_path, denoiser, "sdxl")
    tensors = load_file(files[damaged])
    name = next(name for name in tensors if name.endswith(("lora_B.weight", "lora_up.weight")))
    save_file(tensors | {name: tensors[name] * torch.nan}, files[damaged], adapter_metadata(files[damaged]))
    with pytest.raises(ExportMismatch, match=files[damaged].name):
        require_same_adapter(denoiser, tmp_path, "named.safetensors", "sdxl", batch)


@pytest.mark.integration
def test_a_wrong_alpha_is_found_out(tmp_path: Path, tiny_base: Path) -> None:
    denoiser, batch = trained(tiny_base, "sdxl", Adapter(rank=4), Cache(tmp_path / "cache"))
    files = write_both(tmp_path, denoiser, "sdxl")
    tensors = load_file(files[1])
    save_file({n: t * 2 if n.endswith(".alpha") else t for n, t in tensors.items()}, files[1], {"format": "pt"})
    with pytest.raises(ExportMismatch, match="named"):
        require_same_adapter(denoiser, tmp_path, "named.safetensors", "sdxl", batch)


@pytest.mark.integration
@pytest.mark.parametrize("changed", ["dora_scale", "lora_up.weight", "lora_down.weight", "alpha"])
def test_any_part_of_a_dora_that_is_off_is_found_out(tmp_path: Path, tiny_base: Path, changed: str) -> None:
    adapter = Adapter(type="dora", rank=4)
    denoiser, batch = trained(tiny_base, "sdxl", adapter, Cache(tmp_path / "cache"))
    files = write_both(tmp_path, denoiser, "sdxl")
    tensors = load_file(files[1])
    name = next(name for name in tensors if name.endswith(changed))
    save_file(tensors | {name: tensors[name] * 1.01}, files[1], {"format": "pt"})
    with pytest.raises(ExportMismatch, match="named"):
        require_same_adapter(denoiser, tmp_path, "named.safetensors", "sdxl", batch)


@pytest.mark.integration
def test_an_adapter_too_small_to_be_seen_in_predictions_is_missed_all_the_same(tmp_path: Path, tiny_base: Path) -> None:
    denoiser, batch = trained(tiny_base, "sdxl", Adapter(rank=4), Cache(tmp_path / "cache"))
    for name, parameter in denoiser.network.named_parameters():
        if "lora_B" in name:
            parameter.data *= 1e-6
    files = write_both(tmp_path, denoiser, "sdxl")
    tensors = load_file(files[0])
    emptied = {name: tensor * ("lora_B" not in name) for name, tensor in tensors.items()}
    save_file(emptied, files[0], adapter_metadata(files[0]))
    with pytest.raises(ExportMismatch, match="update"):
        require_same_adapter(denoiser, tmp_path, "named.safetensors", "sdxl", batch)


@pytest.mark.integration
def test_text_encoders_too_come_back_from_the_second_format(tmp_path: Path, tiny_base: Path) -> None:
    """Through diffusers' own conversion: what the pipeline makes of a prompt is what was trained."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_base)
    networks = {part: getattr(pipeline, part) for part in ("unet", "text_encoder", "text_encoder_2")}
    for part, network in networks.items():
        names = ["to_q", "to_v"] if part == "unet" else ["q_proj", "v_proj", "out_proj"]
        network.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=names, init_lora_weights=False))
    save_lora(tmp_path / "first.safetensors", networks, {})
    before = pipeline.encode_prompt("a cat", do_classifier_free_guidance=False, device=CPU)
    weights = kohya_weights(load_file(tmp_path / "first.safetensors"), scales(networks), {}, "sdxl", 1)
    for prefix in (
        "lora_te1",
        "lora_te2",
    ):  # transformers 5 has no text_model in the first encoder; ComfyUI looks for it
        assert f"{prefix}_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in weights
    save_file(weights, tmp_path / "second.safetensors", {"format": "pt"})
    fresh = StableDiffusionXLPipeline.from_pretrained(tiny_base)
    untrained = fresh.encode_prompt("a cat", do_classifier_free_guidance=False, device=CPU)
    fresh.load_lora_weights(str(tmp_path), weight_name="second.safetensors")
    after = fresh.encode_prompt("a cat", do_classifier_free_guidance=False, device=CPU)
    for index in (0, 2):  # hidden states, and pooled
        torch.testing.assert_close(after[index], before[index])
        assert (untrained[index] - before[index]).abs().max() > 1e-3


@pytest.mark.integration
def test_diffusers_finds_every_module_of_sdxl_where_it_was() -> None:
    """All that a LoRA can be on, convolutions and embeddings of time too; weights of one number will do."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    paths = [path for path, module in unet.named_modules() if isinstance(module, kinds)]
    parts = ("lora_A.weight", "lora_B.weight")
    tensors = {f"unet.{path}.{part}": torch.ones(1, 1) for path in paths for part in parts}
    weights = kohya_weights(tensors, {"unet": 1.0}, {}, "sdxl", layers_per_block=2)
    read, _ = StableDiffusionXLPipeline.lora_state_dict(weights, unet_config=unet.config)
    assert set(convert_unet_state_dict_to_peft(read)) == set(tensors)


@pytest.mark.integration
def test_a_unet_of_ten_blocks_a_side_comes_back_though_not_through_diffusers(tmp_path: Path) -> None:
    unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        attention_head_dim=2,
        cross_attention_dim=4,
    )
    targets = ["to_q", "conv1", "conv_in", "conv_out", "conv_shortcut", "time_emb_proj", "ff.net.0.proj", "conv"]
    unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False))
    save_lora(tmp_path / "first.safetensors", {"unet": unet}, {})
    tensors = load_file(tmp_path / "first.safetensors")
    weights = kohya_weights(tensors, scales({"unet": unet}), {}, "sdxl", layers_per_block=2)
    assert len(weights) == len(tensors) * 3 // 2  # no two modules share a name
    assert "lora_unet_input_blocks_10_1_transformer_blocks_0_attn1_to_q.lora_up.weight" in weights
    assert not diffusers_reads(weights)
    back = diffusers_weights(weights, tensors, {}, "sdxl", 2)
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        torch.testing.assert_close(back[key], tensor)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_trained_text_encoders_are_part_of_the_proof(tmp_path: Path, family: FamilyName, kind: str) -> None:
    adapter = Adapter.model_validate({"type": kind, "rank": 4, "alpha": 6, "text_encoder": {"rank": 2}})
    denoiser, batch = trained(SAVE_BASE[family](tmp_path / "base"), family, adapter, Cache(tmp_path / "cache"))
    files = write_both(tmp_path, denoiser, family)
    require_same_adapter(denoiser, tmp_path, "named.safetensors", family, batch)
    tensors = load_file(files[1])
    name = next(name for name in tensors if name.startswith("lora_te") and name.endswith("lora_up.weight"))
    save_file(tensors | {name: tensors[name] * 1.01}, files[1], {"format": "pt"})
    with pytest.raises(ExportMismatch, match="named"):
        require_same_adapter(denoiser, tmp_path, "named.safetensors", family, batch)
