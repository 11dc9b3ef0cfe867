"""Stable Diffusion XL (arXiv 2307.01952) and everything of its architecture: two CLIP text encoders whose hidden
states are joined, pooled text and sizes as ``text_time`` conditioning, epsilon or velocity prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.cache import Tensors
from trainer.device import base_dtype
from trainer.families.architecture import require_family
from trainer.families.autoencoder import (
    AutoencoderDecoder,
    encode_images,
    load_autoencoder,
    load_decoder,
    pixels_per_latent,
)
from trainer.families.diffusion import Diffusion, new_diffusion, read_scheduler, timestep_at
from trainer.families.files import content_hash, locate, read_json, require_safetensors, variant
from trainer.families.lora import ATTENTION, add_lora, lora_config, save_lora, without_lora
from trainer.spec.run import Adapter, Base

ENCODER_PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae")
WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def open_base(base: Base) -> SdxlFamily:
    folder = locate(base.source, base.revision, (*ENCODER_PARTS, "unet", "scheduler"))
    require_family(folder, "sdxl")
    require_safetensors(folder, WEIGHTS)
    return SdxlFamily(base, folder, read_scheduler(folder))


@dataclass(frozen=True)
class SdxlFamily:
    base: Base
    folder: Path
    scheduler: Mapping[str, Any]

    @cached_property
    def _unet(self) -> dict[str, Any]:
        return read_json(self.folder / "unet" / "config.json")

    @property
    def native_size(self) -> int:
        return int(self._unet["sample_size"]) * pixels_per_latent(self.folder)

    @property
    def size_multiple(self) -> int:
        """The UNet halves latents between its levels, and must come back to the same size."""
        return pixels_per_latent(self.folder) << (len(self._unet["block_out_channels"]) - 1)

    @property
    def largest_side(self) -> None:
        return None

    @property
    def num_train_timesteps(self) -> int:
        return int(self.scheduler["num_train_timesteps"])

    @property
    def guidance(self) -> float:
        return 5.0

    def timestep_at(self, share: float) -> float:
        return timestep_at(share, self.num_train_timesteps)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        return {
            "family": "sdxl",
            "revision": self.base.revision,
            "zeros_for_empty": self._zeros_for_empty,
            "sha256": content_hash(self.folder / part for part in ENCODER_PARTS),
        }

    @property
    def _zeros_for_empty(self) -> bool:
        return bool(read_json(self.folder / "model_index.json").get("force_zeros_for_empty_prompt", True))

    def load_encoders(self, device: torch.device) -> SdxlEncoders:
        def load(kind: Any, part: str) -> Any:
            weights = variant(self.folder / part)
            model = kind.from_pretrained(
                self.folder, subfolder=part, use_safetensors=True, variant=weights, torch_dtype=torch.float32
            )
            return model.requires_grad_(False).eval().to(device)

        return SdxlEncoders(
            device=device,
            tokenizers=tuple(CLIPTokenizer.from_pretrained(self.folder, subfolder=p) for p in ENCODER_PARTS[:2]),
            text_encoders=(load(CLIPTextModel, "text_encoder"), load(CLIPTextModelWithProjection, "text_encoder_2")),
            vae=load_autoencoder(self.folder, device),
            zeros_for_empty=self._zeros_for_empty,
        )

    def load_decoder(self, device: torch.device) -> AutoencoderDecoder:
        return load_decoder(self.folder, device)

    def load_denoiser(self, device: torch.device) -> SdxlDenoiser:
        dtype = base_dtype(device)
        weights = variant(self.folder / "unet")
        unet = UNet2DConditionModel.from_pretrained(
            self.folder, subfolder="unet", use_safetensors=True, variant=weights, torch_dtype=dtype
        )
        # Convolutions prefer channels last on a GPU; on a CPU the UNet is 8% slower so.
        memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        unet.requires_grad_(False).eval().to(device, memory_format=memory_format)
        return SdxlDenoiser(unet, new_diffusion(self.scheduler, device), self.scheduler, dtype, memory_format)


@dataclass(frozen=True)
class SdxlEncoders:
    device: torch.device
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    vae: Any
    zeros_for_empty: bool

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """``hidden`` (tokens, width of both encoders): last layer but one. ``pooled`` (width of the second)."""
        outputs = [
            encoder(self._tokens(tokenizer, prompts), output_hidden_states=True)
            for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True)
        ]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1).float().cpu()
        pooled = outputs[1].text_embeds.float().cpu()
        empty = torch.tensor([self.zeros_for_empty and prompt == "" for prompt in prompts])
        hidden[empty], pooled[empty] = 0.0, 0.0
        return [{"hidden": h.clone(), "pooled": p.clone()} for h, p in zip(hidden, pooled, strict=True)]

    def _tokens(self, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
        encoded = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        tokens: Tensor = encoded.input_ids.to(self.device)
        return tokens

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return encode_images(self.vae, pixels, self.device)


@dataclass(frozen=True)
class SdxlDenoiser:
    network: Any
    process: Diffusion
    scheduler: Mapping[str, Any]
    dtype: torch.dtype
    memory_format: torch.memory_format

    @property
    def prediction(self) -> Literal["epsilon", "v_prediction"]:
        return self.process.prediction

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.process.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.process.target(latents, noise, timesteps)

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return prompt

    def new_scheduler(self) -> EulerDiscreteScheduler:
        return EulerDiscreteScheduler.from_config(dict(self.scheduler))

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        prediction: Tensor = self.network(
            noisy.to(self.dtype, memory_format=self.memory_format),
            timesteps,
            encoder_hidden_states=prompt["hidden"].to(self.dtype),
            added_cond_kwargs={"text_embeds": prompt["pooled"].to(self.dtype), "time_ids": size_ids},
            return_dict=False,
        )[0]
        return prediction.float()

    def add_adapter(self, adapter: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
        return add_lora(self.network, lora_config(adapter, ATTENTION), seed=seed)

    def checkpoint_gradients(self, wanted: bool) -> None:
        if wanted:
            self.network.enable_gradient_checkpointing()
        else:
            self.network.disable_gradient_checkpointing()

    def without_adapter(self) -> AbstractContextManager[None]:
        return without_lora(self.network)

    def save_adapter(self, path: Path, metadata: Mapping[str, str]) -> None:
        save_lora(path, {"unet": self.network}, metadata)

    def save_token(self, path: Path) -> bool:
        return False

    def reload_adapter(self, path: Path) -> None:
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

        self.network.unload_lora()
        pipeline = StableDiffusionXLPipeline(
            vae=None,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=self.network,
            scheduler=DDPMScheduler(),
            add_watermarker=False,
        )
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
