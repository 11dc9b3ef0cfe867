"""Stable Diffusion XL (arXiv 2307.01952) and everything of its architecture: two CLIP text encoders whose hidden
states are joined, pooled text and sizes as ``text_time`` conditioning, epsilon or velocity prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.cache.cache import Tensors
from trainer.families.architecture import require_family
from trainer.families.autoencoder import AutoencoderDecoder, encode_images, load_autoencoder, load_decoder
from trainer.families.diffusion import Diffusion, new_diffusion, num_train_timesteps, read_scheduler, timestep_at
from trainer.families.files import content_hash, read_json, require_safetensors
from trainer.families.hub import Progress, no_progress
from trainer.families.locate import locate
from trainer.families.lora import ATTENTION, add_lora, lora_config, save_lora, without_lora
from trainer.families.precision import dtype_of, reads_half
from trainer.families.text import TrainedText, add_words, new_trained_text, spelled_out, text_fingerprint, trains_text
from trainer.families.text_encoders import load_text_encoder, token_ids
from trainer.families.unet import checkpoint_gradients, load_unet, memory_format_on, native_size, size_multiple
from trainer.spec.family_facts import FAMILIES, family_facts
from trainer.spec.run import DEFAULT_ADAPTER, DEFAULT_COMPUTE, Adapter, Base, Compute, Token

ENCODER_PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
EMBEDDING_KEYS = {one.component: one.word for one in FAMILIES["sdxl"].text_encoders if one.word is not None}
WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def open_base(
    base: Base,
    adapter: Adapter = DEFAULT_ADAPTER,
    compute: Compute = DEFAULT_COMPUTE,
    progress: Progress = no_progress,
) -> SdxlFamily:
    folder = locate(base, (*ENCODER_PARTS, "unet", "scheduler"), half=reads_half(compute), progress=progress)
    require_family(folder, "sdxl")
    require_safetensors(folder, WEIGHTS)
    return SdxlFamily(base, folder, read_scheduler(folder), adapter, compute)


@dataclass(frozen=True)
class SdxlFamily:
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
            "family": "sdxl",
            "revision": self.base.revision,
            "zeros_for_empty": self._zeros_for_empty,
            "sha256": content_hash((self.folder / part for part in ENCODER_PARTS), half=self._half),
            **text_fingerprint(self.adapter),
        }

    @property
    def _zeros_for_empty(self) -> bool:
        return bool(read_json(self.folder / "model_index.json").get("force_zeros_for_empty_prompt", True))

    def load_encoders(self, device: torch.device, *, prompts: bool = True, images: bool = True) -> SdxlEncoders:
        encodes_text = prompts and not trains_text(self.adapter)
        return SdxlEncoders(
            device=device,
            tokenizers=self._tokenizers(),
            token=self.adapter.token,
            text_encoders=self._text_encoders(device, torch.float32) if encodes_text else None,
            vae=load_autoencoder(self.folder, device, half=self._half) if images else None,
            zeros_for_empty=self._zeros_for_empty,
        )

    def _tokenizers(self) -> tuple[Any, ...]:
        tokenizers = tuple(CLIPTokenizer.from_pretrained(self.folder, subfolder=part) for part in ENCODER_PARTS[:2])
        if self.adapter.token is not None:
            for tokenizer in tokenizers:
                add_words(tokenizer, self.adapter.token)
        return tokenizers

    def _text_encoders(self, device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
        kinds = zip((CLIPTextModel, CLIPTextModelWithProjection), TEXT_ENCODERS, strict=True)
        return tuple(load_text_encoder(kind, self.folder, part, device, dtype, half=self._half) for kind, part in kinds)

    def load_decoder(self, device: torch.device) -> AutoencoderDecoder:
        return load_decoder(self.folder, device, half=self._half)

    def load_denoiser(self, device: torch.device) -> SdxlDenoiser:
        dtype = dtype_of(self.compute, device)
        unet = load_unet(self.folder, self.compute, device)
        text = None
        if trains_text(self.adapter):
            encoders = dict(zip(TEXT_ENCODERS, self._text_encoders(device, dtype), strict=True))
            tokenizers = dict(zip(TEXT_ENCODERS, self._tokenizers(), strict=True))
            text = new_trained_text(encoders, tokenizers, self.adapter.token)
        process, memory_format = new_diffusion(self.scheduler, device), memory_format_on(device)
        return SdxlDenoiser(unet, process, self.scheduler, dtype, memory_format, text)


@dataclass(frozen=True)
class SdxlEncoders:
    device: torch.device
    tokenizers: tuple[Any, ...]
    token: Token | None
    text_encoders: tuple[Any, ...] | None
    vae: Any
    zeros_for_empty: bool

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[Tensors]:
        """``hidden`` (tokens, width of both encoders): last layer but one. ``pooled`` (width of the second).

        Where text encoders are trained, ``ids`` and ``ids_2`` (tokens), and ``empty``, 1 where zeros stand for it.
        """
        spelled = [spelled_out(prompt, self.token) for prompt in prompts]
        ids = [token_ids(one, spelled, one.model_max_length, self.device) for one in self.tokenizers]
        empty = torch.tensor([self.zeros_for_empty and prompt == "" for prompt in prompts])
        if self.text_encoders is None:
            rows = zip(ids[0].cpu(), ids[1].cpu(), empty.float(), strict=True)
            return [{"ids": one.clone(), "ids_2": other.clone(), "empty": is_empty} for one, other, is_empty in rows]
        hidden, pooled = (tensor.float().cpu() for tensor in encoded(self.text_encoders, ids))
        hidden[empty], pooled[empty] = 0.0, 0.0
        return [{"hidden": h.clone(), "pooled": p.clone()} for h, p in zip(hidden, pooled, strict=True)]

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return encode_images(self.vae, pixels, self.device)


@dataclass(frozen=True)
class SdxlDenoiser:
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
        hidden, pooled = encoded(tuple(self.text.encoders.values()), [prompt["ids"], prompt["ids_2"]])
        not_dropped = 1 - prompt["empty"].to(hidden.dtype)
        return {"hidden": hidden * not_dropped.view(-1, 1, 1), "pooled": pooled * not_dropped.view(-1, 1)}

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
        """A table for each encoder, by the names that are usual for SDXL."""
        return self.text is not None and self.text.save_token(path, EMBEDDING_KEYS)

    def load_token(self, path: Path) -> None:
        if self.text is not None:
            self.text.load_token(path, EMBEDDING_KEYS)

    def reload_adapter(self, path: Path) -> None:
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

        self.network.unload_lora()
        encoders = self.text.encoders if self.text else {}
        if self.text:
            self.text.drop_lora()
        pipeline = StableDiffusionXLPipeline(
            vae=None,
            text_encoder=encoders.get("text_encoder"),
            text_encoder_2=encoders.get("text_encoder_2"),
            tokenizer=None,
            tokenizer_2=None,
            unet=self.network,
            scheduler=DDPMScheduler(),
            add_watermarker=False,
        )
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)


def encoded(text_encoders: Sequence[Any], ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states (n, tokens, width of both) and the second's pooled (n, width) of token ids (n, tokens)."""
    outputs = [encoder(one, output_hidden_states=True) for encoder, one in zip(text_encoders, ids, strict=True)]
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[1].text_embeds
