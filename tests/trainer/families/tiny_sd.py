"""Random SD 1.x and SD 2.x pipelines small enough to train in a second."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.emoji_xl import TEXT_WIDTH, TOKENS, new_tokenizer
from tests.trainer.tiny_sdxl import PROMPTS

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def save_sd1(folder: Path) -> Path:
    """Predicts noise. Native size 32 x 32, latents 4 x 16 x 16, sides in multiples of 4."""
    scheduler = PNDMScheduler(**NOISE, set_alpha_to_one=False, skip_prk_steps=True)
    return _save(folder, scheduler, use_linear_projection=False, activation="quick_gelu", layers=3)


def save_sd2(folder: Path) -> Path:
    """Predicts velocity, as the models for 768 x 768 do; sizes as ``save_sd1``."""
    scheduler = DDIMScheduler(**NOISE, set_alpha_to_one=False, clip_sample=False, prediction_type="v_prediction")
    return _save(folder, scheduler, use_linear_projection=True, activation="gelu", layers=2)


def new_vae(channels: int = 4, shift: float | None = None) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        shift_factor=shift,
    )


def _save(folder: Path, scheduler: object, *, use_linear_projection: bool, activation: str, layers: int) -> Path:
    torch.manual_seed(7)
    tokenizer = new_tokenizer(PROMPTS, 600)
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=(2, 4) if use_linear_projection else 4,
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=use_linear_projection,
    )
    pipeline = StableDiffusionPipeline(
        vae=new_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, activation, layers)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _text_config(tokenizer: CLIPTokenizer, activation: str, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
