"""Stable Diffusion 1.x (arXiv 2112.10752) and 2.x, and everything of their architecture.

One CLIP text encoder, epsilon or velocity prediction, no conditioning on sizes. What sets 2.x apart is in its files:
another, wider text encoder without its last layer, and velocity prediction in the models for 768 x 768 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.cache.cache import Tensors
from trainer.families.architecture import require_family
from trainer.families.autoencoder import AutoencoderDecoder, encode_images, load_autoencoder, load_decoder
from trainer.families.diffusion import Diffusion, new_diffusion, num_train_timesteps, read_scheduler, timestep_at
from trainer.families.files import content_hash, require_safetensors
from trainer.families.hub import Progress, no_progress
from trainer.families.locate import locate
from trainer.families.lora import ATTENTION, add_lora, lora_config, save_lora, without_lora
from trainer.families.precision import dtype_of, reads_half
from trainer.families.text import TrainedText, add_words, new_trained_text, spelled_out, text_fingerprint, trains_text
from trainer.families.text_encoders import load_text_encoder, token_ids
from trainer.families.unet import checkpoint_gradients, load_unet, memory_format_on, native_size, size_multiple
from trainer.spec.family_facts import family_facts
from trainer.spec.run import DEFAULT_ADAPTER, DEFAULT_COMPUTE, Adapter, Base, Compute, Token

ENCODER_PARTS = ("tokenizer", "text_encoder", "vae")
WEIGHTS = ("unet", "vae", "text_encoder")


def open_base(
    base: Base,
    adapter: Adapter = DEFAULT_ADAPTER,
    compute: Compute = DEFAULT_COMPUTE,
    progress: Progress = no_progress,
) -> SdFamily:
    folder = locate(base, (*ENCODER_PARTS, "unet", "scheduler"), half=reads_half(compute), progress=progress)
    require_family(folder, base.family)
    require_safetensors(folder, WEIGHTS)
    return SdFamily(base, folder, read_scheduler(folder), adapter, compute)


@dataclass(frozen=True)
class SdFamily:
    base: Base
    folder: Path
    scheduler: Mapping[str, Any]
    adapter: Adapter = DEFAULT_ADAPTER
    compute: Compute = DEFAULT_COMPUTE

    @property
    def _half(self) -> bool:
        return reads_half(self.compute)

    @property
    def native_size(self) -> int:
        return native_size(self.folder)

    @property
    def size_multiple(self) -> int:
        return size_multiple(self.folder)

    @property
    def largest_side(self) -> None:
        return None

    @property
    def missing_parts(self) -> tuple[str, ...]:
        return ()

    @property
    def num_train_timesteps(self) -> int:
        return num_train_timesteps(self.scheduler)

    @property
    def guidance(self) -> float:
        return family_facts(self.base.family).guidance

    def timestep_at(self, share: float) -> float:
        return timestep_at(share, self.num_train_timesteps)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        return {
            "family": self.base.family,
            "revision": self.base.revision,
            "sha256": content_hash((self.folder / part for part in ENCODER_PARTS), half=self._half),
            **text_fingerprint(self.adapter),
        }

    def load_encoders(self, device: torch.device, *, prompts: bool = True, images: bool = True) -> SdEncoders:
        encodes_text = prompts and not trains_text(self.adapter)
        return SdEncoders(
            device=device,
            tokenizer=self._tokenizer(),
            token=self.adapter.token,
            text_encoder=self._text_encoder(device, torch.float32) if encodes_text else None,
            vae=load_autoencoder(self.folder, device, half=self._half) if images else None,
        )

    def _tokenizer(self) -> Any:
        tokenizer = CLIPTokenizer.from_pretrained(self.folder, subfolder="tokenizer")
        if self.adapter.token is not None:
            add_words(tokenizer, self.adapter.token)
        return tokenizer

    def _text_encoder(self, device: torch.device, dtype: torch.dtype) -> Any:
        return load_text_encoder(CLIPTextModel, self.folder, "text_encoder", device, dtype, half=self._half)

    def load_decoder(self, device: torch.device) -> AutoencoderDecoder:
        return load_decoder(self.folder, device, half=self._half)

    def load_denoiser(self, device: torch.device) -> SdDenoiser:
        dtype = dtype_of(self.compute, device)
        unet = load_unet(self.folder, self.compute, device)
        text = None
        if trains_text(self.adapter):
            encoders = {"text_encoder": self._text_encoder(device, dtype)}
            text = new_trained_text(encoders, {"text_encoder": self._tokenizer()}, self.adapter.token)
        process, memory_format = new_diffusion(self.scheduler, device), memory_format_on(device)
        return SdDenoiser(unet, process, self.scheduler, dtype, memory_format, text)


@dataclass(frozen=True)
class SdEncoders:
    device: torch.device
    tokenizer: Any
    token: Token | None
    text_encoder: Any
    vae: Any

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """``hidden`` (tokens, width): the last layer, normalised. SD 2.x's encoder comes without the layer it skips."""
        spelled = [spelled_out(prompt, self.token) for prompt in prompts]
        ids = token_ids(self.tokenizer, spelled, self.tokenizer.model_max_length, self.device)
        if self.text_encoder is None:
            return [{"ids": one.clone()} for one in ids.cpu()]
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
    text: TrainedText | None = None

    @property
    def adapted(self) -> Mapping[str, nn.Module]:
        return {"unet": self.network, **(self.text.adapted if self.text else {})}

    @property
    def prediction(self) -> Literal["epsilon", "v_prediction"]:
        return self.process.prediction

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.process.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.process.target(latents, noise, timesteps)

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.text is None:
            return prompt
        return {"hidden": self.text.encoders["text_encoder"](prompt["ids"]).last_hidden_state}

    def new_scheduler(self) -> EulerDiscreteScheduler:
        return EulerDiscreteScheduler.from_config(dict(self.scheduler))

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        """``size_ids`` are not used: SD has no size conditioning."""
        prediction: Tensor = self.network(
            noisy.to(self.dtype, memory_format=self.memory_format),
            timesteps,
            encoder_hidden_states=prompt["hidden"].to(self.dtype),
            return_dict=False,
        )[0]
        return prediction.float()

    def add_adapter(self, adapter: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
        text = self.text.add_adapter(adapter, seed=seed) if self.text else {}
        return add_lora(self.network, lora_config(adapter, ATTENTION), seed=seed) | text

    def compile_blocks(self) -> None:
        self.network.compile_repeated_blocks()

    def checkpoint_gradients(self, wanted: bool) -> None:
        checkpoint_gradients(self.network, wanted)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        with without_lora(self.network), self.text.without_adapter() if self.text else nullcontext():
            yield

    def save_adapter(self, path: Path, metadata: Mapping[str, str]) -> None:
        save_lora(path, self.adapted, metadata)

    def save_token(self, path: Path) -> bool:
        """As ``load_textual_inversion`` reads it: the word with its rows."""
        if self.text is None or self.text.token is None:
            return False
        return self.text.save_token(path, {"text_encoder": self.text.token.text})

    def load_token(self, path: Path) -> None:
        if self.text is not None and self.text.token is not None:
            self.text.load_token(path, {"text_encoder": self.text.token.text})

    def reload_adapter(self, path: Path) -> None:
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        self.network.unload_lora()
        encoders = self.text.encoders if self.text else {}
        if self.text:
            self.text.drop_lora()
        pipeline = StableDiffusionPipeline(
            vae=None,
            text_encoder=encoders.get("text_encoder"),
            tokenizer=None,
            unet=self.network,
            scheduler=EulerDiscreteScheduler(steps_offset=1),  # not used; any other offset is warned of
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
