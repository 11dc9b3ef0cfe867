"""Random bases of SDXL's and SD3 medium's real sizes, made on the spot: no weights are downloaded.

``python -m benchmarks.gpu_check.bases FAMILY FOLDER [--tiny]`` writes one in diffusers' layout, in bf16. What a random
network predicts is meaningless, but its shapes, memory and arithmetic are the real ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from benchmarks.gpu_check.run_folders import PROMPTS
from benchmarks.trainer.traffic import SD3, SDXL
from demo.emoji_xl import new_scheduler, new_tokenizer
from trainer.runtime.device import choose_device

Config = Mapping[str, Any]
# Of CLIP ViT-L and OpenCLIP bigG, in SDXL and SD3 alike; T5-XXL's encoder.
CLIP: tuple[Config, Config] = (
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
)
T5: Config = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
VAE: Config = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024}

TINY_CLIP: tuple[Config, Config] = (
    {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
)
TINY_T5: Config = {"vocab_size": 200, "d_model": 48, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4}
TINY_VAE: Config = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "sample_size": 32,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
}
TINY_SDXL: Config = {
    "sample_size": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "transformer_layers_per_block": 1,
    "attention_head_dim": (1, 2),
    "cross_attention_dim": 16 + 24,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 24,
}
TINY_SD3: Config = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 48,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 16 + 24,
    "pos_embed_max_size": 16,
}
# Default weights predict about a third of what trained ones do, too little for bf16's rounding to show.
LAST_LAYER = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=("sdxl", "sd3"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    new = new_sdxl if given.family == "sdxl" else new_sd3
    pipeline = new(given.tiny)
    pipeline.save_pretrained(given.folder, safe_serialization=True)
    size = sum(path.stat().st_size for path in given.folder.rglob("*.safetensors"))
    print(json.dumps({"bytes": size}))


def new_sdxl(tiny: bool) -> StableDiffusionXLPipeline:
    clips, tokenizer = (TINY_CLIP if tiny else CLIP), new_tokenizer(PROMPTS, 600)
    with in_bf16():
        unet = UNet2DConditionModel(**(TINY_SDXL if tiny else SDXL))
        scale_last_layer(unet.conv_out)
        vae = AutoencoderKL(latent_channels=4, scaling_factor=0.13025, **blocks(TINY_VAE if tiny else VAE))
        first = CLIPTextModel(clip_config(clips[0], tokenizer, tiny))
        second = CLIPTextModelWithProjection(clip_config(clips[1], tokenizer, tiny))
    return StableDiffusionXLPipeline(
        vae=vae.cpu(),
        text_encoder=first.cpu(),
        text_encoder_2=second.cpu(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.cpu(),
        scheduler=new_scheduler(),
        add_watermarker=False,
    )


def new_sd3(tiny: bool) -> StableDiffusion3Pipeline:
    """With T5, the largest network of all: that it leaves the device before images are encoded decides what fits."""
    clips, t5, tokenizer = (TINY_CLIP if tiny else CLIP), (TINY_T5 if tiny else T5), new_tokenizer(PROMPTS, 600)
    with in_bf16():
        transformer = SD3Transformer2DModel(**(TINY_SD3 if tiny else SD3))
        scale_last_layer(transformer.proj_out)
        vae = AutoencoderKL(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
            **blocks(TINY_VAE if tiny else VAE),
        )
        first, second = (CLIPTextModelWithProjection(clip_config(one, tokenizer, tiny)) for one in clips)
        third = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", is_encoder_decoder=False, **t5))
    return StableDiffusion3Pipeline(
        vae=vae.cpu(),
        text_encoder=first.cpu(),
        text_encoder_2=second.cpu(),
        text_encoder_3=third.cpu(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=new_t5_tokenizer(),
        transformer=transformer.cpu(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


@contextmanager
def in_bf16() -> Iterator[None]:
    """Random numbers for billions of weights take a GPU seconds, and a CPU minutes."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(choose_device()):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@torch.no_grad()
def scale_last_layer(layer: Any) -> None:
    layer.weight.mul_(LAST_LAYER)


def blocks(config: Config) -> dict[str, Any]:
    levels = len(config["block_out_channels"])
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        **config,
    }


def clip_config(config: Config, tokenizer: CLIPTokenizer, tiny: bool) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer) if tiny else 49408,
        projection_dim=config["hidden_size"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **config,
    )


def new_t5_tokenizer() -> T5TokenizerFast:
    """A Unigram model in T5's form, learned from the prompts."""
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = "<unk>"
    specials = ["<pad>", "</s>", unknown]
    unigram.train_from_iterator(
        PROMPTS,
        trainers.UnigramTrainer(vocab_size=80, special_tokens=specials, unk_token=unknown, show_progress=False),
    )
    unigram.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": unknown}
    return T5TokenizerFast(tokenizer_object=unigram, extra_ids=0, **names)


if __name__ == "__main__":
    main()
