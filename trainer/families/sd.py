"""Stable Diffusion 1.x (arXiv 2112.10752) and 2.x, and everything of their architecture.

One CLIP text encoder, epsilon or velocity prediction, no conditioning on sizes. What sets 2.x apart is in its files:
another, wider text encoder without its last layer, and velocity prediction in the models for 768 x 768 pixels.
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
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

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
from trainer.families.text_encoders import load_text_encoder, require_frozen_text_encoders, token_ids
from trainer.spec.run import Adapter, Base

ENCODER_PARTS = ("tokenizer", "text_encoder", "vae")
WEIGHTS = ("unet", "vae", "text_encoder")


def open_base(base: Base) -> SdFamily:
    folder = locate(base.source, base.revision, (*ENCODER_PARTS, "unet", "scheduler"))
    require_family(folder, base.family)
    require_safetensors(folder, WEIGHTS)
    return SdFamily(base, folder, read_scheduler(folder))


@dataclass(frozen=True)
class SdFamily:
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
        return 7.5

    def timestep_at(self, share: float) -> float:
        return timestep_at(share, self.num_train_timesteps)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        return {
            "family": self.base.family,
            "revision": self.base.revision,
            "sha256": content_hash(self.folder / part for part in ENCODER_PARTS),
        }

    def load_encoders(self, device: torch.device) -> SdEncoders:
        return SdEncoders(
            device=device,
            tokenizer=CLIPTokenizer.from_pretrained(self.folder, subfolder="tokenizer"),
            text_encoder=load_text_encoder(CLIPTextModel, self.folder, "text_encoder", device, torch.float32),
            vae=load_autoencoder(self.folder, device),
        )

    def load_decoder(self, device: torch.device) -> AutoencoderDecoder:
        return load_decoder(self.folder, device)

    def load_denoiser(self, device: torch.device) -> SdDenoiser:
        dtype = base_dtype(device)
        weights = variant(self.folder / "unet")
        unet = UNet2DConditionModel.from_pretrained(
            self.folder, subfolder="unet", use_safetensors=True, variant=weights, torch_dtype=dtype
        )
        # As for SDXL: convolutions prefer channels last on a GPU, and lose by it on a CPU.
        memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        unet.requires_grad_(False).eval().to(device, memory_format=memory_format)
        return SdDenoiser(unet, new_diffusion(self.scheduler, device), self.scheduler, dtype, memory_format)


@dataclass(frozen=True)
class SdEncoders:
    device: torch.device
    tokenizer: Any
    text_encoder: Any
    vae: Any

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """``hidden`` (tokens, width): the last layer, normalised. SD 2.x's encoder comes without the layer it skips."""
        ids = token_ids(self.tokenizer, prompts, self.tokenizer.model_max_length, self.device)
        hidden = self.text_encoder(ids).last_hidden_state.float().cpu()
        return [{"hidden": one.clone()} for one in hidden]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return encode_images(self.vae, pixels, self.device)


@dataclass(frozen=True)
class SdDenoiser:
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
        """``size_ids`` are not looked at: SD has no size conditioning."""
        prediction: Tensor = self.network(
            noisy.to(self.dtype, memory_format=self.memory_format),
            timesteps,
            encoder_hidden_states=prompt["hidden"].to(self.dtype),
            return_dict=False,
        )[0]
        return prediction.float()

    def add_adapter(self, adapter: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
        require_frozen_text_encoders(adapter, "sd1 and sd2")
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
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        self.network.unload_lora()
        pipeline = StableDiffusionPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=self.network,
            scheduler=EulerDiscreteScheduler(steps_offset=1),  # not used; any other offset is warned of
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
