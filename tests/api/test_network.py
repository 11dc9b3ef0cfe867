"""What is taken for a network's size, counted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from api.fine_tuning.estimates.network import network_of
from store.settings import REPOSITORY
from trainer.spec.family_facts import FAMILIES, FamilyName
from trainer.spec.run import Base

pytestmark = pytest.mark.unit
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}


def published(family: FamilyName) -> tuple[Any, dict[str, Any]]:
    """The denoiser without its weights, and an image for it."""
    if family == "sd3":
        embeddings = {"encoder_hidden_states": torch.empty(1, 154, 4096), "pooled_projections": torch.empty(1, 2048)}
        return SD3Transformer2DModel(**SD3), {"hidden_states": torch.empty(1, 16, 128, 128)} | embeddings
    if family == "sdxl":
        added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        given = {"encoder_hidden_states": torch.empty(1, 77, 2048), "added_cond_kwargs": added}
        return UNet2DConditionModel(**SDXL), {"sample": torch.empty(1, 4, 128, 128)} | given
    network = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    return network, {"sample": torch.empty(1, 4, 64, 64), "encoder_hidden_states": torch.empty(1, 77, 768)}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
def test_a_published_networks_parameters_and_passes_are_as_counted(family: FamilyName) -> None:
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network, image = published(family)
        network(**image, timestep=torch.empty(1))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == pytest.approx(FAMILIES[family].network.parameters, rel=0.01)
    assert counter.get_total_flops() == pytest.approx(FAMILIES[family].network.flops, rel=0.01)


def test_a_base_on_this_machine_is_measured_by_its_files() -> None:
    source = REPOSITORY / "demo" / "base" / "emoji-xl"
    found = network_of(Base(name="emoji-xl", family="sdxl", source=str(source)))
    assert (found.side, found.latent, found.parameters) == (64, 16, 10_992_260)
    assert found.flops == pytest.approx(FAMILIES["sdxl"].network.flops * (10_992_260 / 2.567e9) / 64)


def test_a_base_elsewhere_or_in_pieces_is_taken_for_its_familys(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"no header")
    for source in ("someone/a-model", str(tmp_path)):
        assert network_of(Base(name="b", family="sd1", source=source, revision="0" * 40)) == FAMILIES["sd1"].network
