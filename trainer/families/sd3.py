"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206) and everything of their architecture: a flow-matching transformer,
two CLIP text encoders, and T5 where the base comes with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from trainer.cache.cache import Tensors
from trainer.families.architecture import require_family
from trainer.families.autoencoder import (
    AutoencoderDecoder,
    encode_images,
    load_autoencoder,
    load_decoder,
    pixels_per_latent,
)
from trainer.families.files import content_hash, read_json, require_safetensors, variant
from trainer.families.flow import Flow, read_scheduler, timestep_at
from trainer.families.hub import Progress, no_progress
from trainer.families.locate import locate
from trainer.families.lora import ATTENTION, add_lora, lora_config, save_lora, without_lora
from trainer.families.precision import dtype_of, loading, placed, reads_half
from trainer.families.text_encoders import load_text_encoder, require_frozen_text_encoders, token_ids
from trainer.spec.family_facts import T5_TOKENS, family_facts
from trainer.spec.run import DEFAULT_ADAPTER, DEFAULT_COMPUTE, Adapter, Base, Compute

CLIP_PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
T5_PARTS = ("tokenizer_3", "text_encoder_3")
T5_LENGTH = T5_TOKENS + 1  # with the end: 256, to which the pipelines cut prompts by default
# Of both streams, image and text, as diffusers' own script adapts them.
TARGETS = tuple(f"attn.{name}" for name in (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))


def open_base(
    base: Base,
    adapter: Adapter = DEFAULT_ADAPTER,
    compute: Compute = DEFAULT_COMPUTE,
    progress: Progress = no_progress,
) -> Sd3Family:
    folder = locate(
        base, (*CLIP_PARTS, *T5_PARTS, "vae", "transformer", "scheduler"), half=reads_half(compute), progress=progress
    )
    require_family(folder, "sd3")
    require_frozen_text_encoders(adapter, "sd3")
    family = Sd3Family(base, folder, read_scheduler(folder), compute)
    t5 = ("text_encoder_3",) if family.has_t5 else ()
    require_safetensors(folder, ("transformer", "vae", "text_encoder", "text_encoder_2", *t5))
    return family


@dataclass(frozen=True)
class Sd3Family:
    base: Base
    folder: Path
    scheduler: Mapping[str, Any]
    compute: Compute = DEFAULT_COMPUTE

    @property
    def _half(self) -> bool:
        return reads_half(self.compute)

    @cached_property
    def _transformer(self) -> dict[str, Any]:
        return read_json(self.folder / "transformer" / "config.json")

    @cached_property
    def has_t5(self) -> bool:
        """A base may leave T5 out (``[null, null]`` in model_index.json), which the pipelines replace by zeros."""
        return read_json(self.folder / "model_index.json").get("text_encoder_3", [None])[0] is not None

    @property
    def native_size(self) -> int:
        return int(self._transformer["sample_size"]) * pixels_per_latent(self.folder)

    @property
    def size_multiple(self) -> int:
        return int(self._transformer["patch_size"]) * pixels_per_latent(self.folder)

    @property
    def largest_side(self) -> int:
        """Positions are a table with so many rows and columns of patches: SD3 medium's ends at 1536 pixels."""
        return int(self._transformer["pos_embed_max_size"]) * self.size_multiple

    @property
    def missing_parts(self) -> tuple[str, ...]:
        return () if self.has_t5 else T5_PARTS

    @property
    def num_train_timesteps(self) -> int:
        return int(self.scheduler.get("num_train_timesteps", 1000))

    @property
    def guidance(self) -> float:
        return family_facts(self.base.family).guidance

    def timestep_at(self, share: float) -> float:
        return timestep_at(share, self.num_train_timesteps, float(self.scheduler.get("shift", 1.0)))

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        parts = (*CLIP_PARTS, *(T5_PARTS if self.has_t5 else ()), "vae")
        return {
            "family": "sd3",
            "revision": self.base.revision,
            "sha256": content_hash((self.folder / part for part in parts), half=self._half),
        }

    def load_encoders(self, device: torch.device, *, prompts: bool = True, images: bool = True) -> Sd3Encoders:
        clips = (
            load_text_encoder(CLIPTextModelWithProjection, self.folder, part, device, torch.float32, half=self._half)
            for part in (CLIP_PARTS[2:] if prompts else ())
        )
        return Sd3Encoders(
            device=device,
            tokenizers=tuple(CLIPTokenizer.from_pretrained(self.folder, subfolder=part) for part in CLIP_PARTS[:2]),
            text_encoders=tuple(clips),
            t5=self._load_t5(device) if self.has_t5 and prompts else None,
            vae=load_autoencoder(self.folder, device, half=self._half) if images else None,
        )

    def _load_t5(self, device: torch.device) -> T5:
        """In the base's precision: the 4.7 billion parameters of SD3's take 19 GB in fp32."""
        tokenizer = T5TokenizerFast.from_pretrained(self.folder, subfolder="tokenizer_3")
        encoder = load_text_encoder(
            T5EncoderModel, self.folder, "text_encoder_3", device, dtype_of(self.compute, device), half=self._half
        )
        return T5(tokenizer, encoder)

    def load_decoder(self, device: torch.device) -> AutoencoderDecoder:
        return load_decoder(self.folder, device, half=self._half)

    def load_denoiser(self, device: torch.device) -> Sd3Denoiser:
        dtype = dtype_of(self.compute, device)
        weights = variant(self.folder / "transformer", half=self._half)
        transformer = SD3Transformer2DModel.from_pretrained(
            self.folder, subfolder="transformer", use_safetensors=True, variant=weights, **loading(self.compute, device)
        )
        transformer = placed(transformer.requires_grad_(False).eval(), self.compute, device, torch.contiguous_format)
        return Sd3Denoiser(transformer, Flow(self.num_train_timesteps), self.scheduler, dtype)


@dataclass(frozen=True)
class T5:
    tokenizer: Any
    encoder: Any


@dataclass(frozen=True)
class Sd3Encoders:
    device: torch.device
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    t5: T5 | None
    vae: Any

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """Apart, so that no zeros are cached; ``Sd3Denoiser.condition`` joins them.

        ``clip`` (tokens, width of both encoders): last layer but one. ``pooled`` (width of both): projected.
        ``t5`` (T5_LENGTH, width): last layer, padding included; only where the base has T5.
        """
        length = self.tokenizers[0].model_max_length  # the pipelines take the first one's for both
        outputs = [
            encoder(token_ids(tokenizer, prompts, length, self.device), output_hidden_states=True)
            for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True)
        ]
        encoded = {
            "clip": torch.cat([output.hidden_states[-2] for output in outputs], dim=-1),
            "pooled": torch.cat([output.text_embeds for output in outputs], dim=-1),
        }
        if self.t5 is not None:
            encoded["t5"] = self.t5.encoder(token_ids(self.t5.tokenizer, prompts, T5_LENGTH, self.device))[0]
        return [
            {name: tensors[position].float().cpu().clone() for name, tensors in encoded.items()}
            for position in range(len(prompts))
        ]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return encode_images(self.vae, pixels, self.device)


@dataclass(frozen=True)
class Sd3Denoiser:
    network: Any
    process: Flow
    scheduler: Mapping[str, Any]
    dtype: torch.dtype

    @property
    def adapted(self) -> Mapping[str, nn.Module]:
        return {"transformer": self.network}

    @property
    def prediction(self) -> Literal["flow"]:
        return "flow"

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.process.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.process.target(latents, noise, timesteps)

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """``hidden`` (n, tokens of CLIP, then T5_LENGTH, width): CLIP's padded with zeros to T5's width; ``pooled``."""
        clip, width = prompt["clip"], int(self.network.config.joint_attention_dim)
        t5 = prompt["t5"] if "t5" in prompt else clip.new_zeros(len(clip), T5_LENGTH, width)
        hidden = torch.cat([pad(clip, (0, width - clip.shape[-1])), t5], dim=1)
        return {"hidden": hidden, "pooled": prompt["pooled"]}

    def new_scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        return FlowMatchEulerDiscreteScheduler.from_config(dict(self.scheduler))

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        """``size_ids`` are not used: SD3 has no size conditioning."""
        prediction: Tensor = self.network(
            noisy.to(self.dtype),
            encoder_hidden_states=prompt["hidden"].to(self.dtype),
            pooled_projections=prompt["pooled"].to(self.dtype),
            timestep=timesteps,
            return_dict=False,
        )[0]
        return prediction.float()

    def add_adapter(self, adapter: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
        return add_lora(self.network, lora_config(adapter, TARGETS), seed=seed)

    def compile_blocks(self) -> None:
        """Diffusers names no repeated blocks of this network, so that its own method refuses it."""
        for block in self.network.transformer_blocks:
            block.compile()

    def checkpoint_gradients(self, wanted: bool) -> None:
        if wanted:
            self.network.enable_gradient_checkpointing()
        else:
            self.network.disable_gradient_checkpointing()

    def without_adapter(self) -> AbstractContextManager[None]:
        return without_lora(self.network)

    def save_adapter(self, path: Path, metadata: Mapping[str, str]) -> None:
        save_lora(path, self.adapted, metadata)

    def save_token(self, path: Path) -> bool:
        return False

    def load_token(self, path: Path) -> None:
        raise AssertionError("no word is learned in this family")

    def reload_adapter(self, path: Path) -> None:
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

        self.network.unload_lora()
        pipeline = StableDiffusion3Pipeline(
            vae=None,
            text_encoder=None,
            text_encoder_2=None,
            text_encoder_3=None,
            tokenizer=None,
            tokenizer_2=None,
            tokenizer_3=None,
            transformer=self.network,
            scheduler=self.new_scheduler(),
        )
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
