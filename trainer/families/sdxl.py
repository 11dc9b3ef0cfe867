"""Stable Diffusion XL (arXiv 2307.01952) and everything of its architecture: two CLIP text encoders whose hidden
states are joined, pooled text and sizes as ``text_time`` conditioning, epsilon or velocity prediction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.cache import Tensors
from trainer.device import base_dtype
from trainer.errors import BadRun, Fault
from trainer.families.files import content_hash, locate, read_json, require_safetensors, variant
from trainer.spec.run import Base

ENCODER_PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae")
WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
PREDICTIONS = ("epsilon", "v_prediction")
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
ADAPTER = "default"
ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for


def open_base(base: Base) -> SdxlFamily:
    folder = locate(base.source, base.revision, (*ENCODER_PARTS, "unet", "scheduler"))
    require_safetensors(folder, WEIGHTS)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        allowed = f"allowed are {', '.join(PREDICTIONS)}"
        raise BadRun([Fault("base.source scheduler/ prediction_type", prediction, allowed)], code="bad_base")
    return SdxlFamily(base, folder, scheduler)


@dataclass(frozen=True)
class SdxlFamily:
    base: Base
    folder: Path
    scheduler: Mapping[str, Any]

    @cached_property
    def _unet(self) -> dict[str, Any]:
        return read_json(self.folder / "unet" / "config.json")

    @cached_property
    def _vae_factor(self) -> int:
        """Pixels a latent stands for, per side."""
        blocks: list[int] = read_json(self.folder / "vae" / "config.json")["block_out_channels"]
        return 1 << (len(blocks) - 1)

    @property
    def native_size(self) -> int:
        return int(self._unet["sample_size"]) * self._vae_factor

    @property
    def size_multiple(self) -> int:
        """The UNet halves latents between its levels, and must come back to the same size."""
        return self._vae_factor << (len(self._unet["block_out_channels"]) - 1)

    @property
    def num_train_timesteps(self) -> int:
        return int(self.scheduler["num_train_timesteps"])

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
        # All in fp32: SDXL's VAE overflows in half precision, and this happens once.
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
            vae=load(AutoencoderKL, "vae"),
            zeros_for_empty=self._zeros_for_empty,
        )

    def load_denoiser(self, device: torch.device) -> SdxlDenoiser:
        dtype = base_dtype(device)
        weights = variant(self.folder / "unet")
        unet = UNet2DConditionModel.from_pretrained(
            self.folder, subfolder="unet", use_safetensors=True, variant=weights, torch_dtype=dtype
        )
        # Convolutions prefer channels last on a GPU; on a CPU the UNet is 8% slower so.
        memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        unet.requires_grad_(False).eval().to(device, memory_format=memory_format)
        schedule = DDPMScheduler.from_config(dict(self.scheduler))
        alphas = schedule.alphas_cumprod.to(device=device, dtype=torch.float32)
        return SdxlDenoiser(unet, alphas, self.scheduler.get("prediction_type", "epsilon"), dtype, memory_format)


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

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(pixels.to(self.device)).latent_dist
        config = self.vae.config
        scale = torch.tensor(config.scaling_factor)
        shift = torch.tensor(0.0)
        if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
            shift = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
            scale = scale / torch.tensor(config.latents_std).view(1, -1, 1, 1)
        return (posterior.mean.float().cpu() - shift) * scale, posterior.std.float().cpu() * scale


@dataclass(frozen=True)
class SdxlDenoiser:
    """``alphas_cumprod`` (timesteps,) is the signal's share of the variance."""

    network: Any
    alphas_cumprod: Tensor
    prediction_type: str
    dtype: torch.dtype
    memory_format: torch.memory_format

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal, deviation = self._weights(timesteps)
        return signal * latents + deviation * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or the velocity of arXiv 2202.00512, appendix D."""
        if self.prediction_type == "epsilon":
            return noise
        signal, deviation = self._weights(timesteps)
        return signal * noise - deviation * latents

    def _weights(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()

    def predict(self, noisy: Tensor, timesteps: Tensor, prompt: Mapping[str, Tensor], size_ids: Tensor) -> Tensor:
        prediction: Tensor = self.network(
            noisy.to(self.dtype, memory_format=self.memory_format),
            timesteps,
            encoder_hidden_states=prompt["hidden"].to(self.dtype),
            added_cond_kwargs={"text_embeds": prompt["pooled"].to(self.dtype), "time_ids": size_ids},
            return_dict=False,
        )[0]
        return prediction.float()

    def add_adapter(self, *, rank: int, alpha: float, seed: int) -> dict[str, nn.Parameter]:
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS), init_lora_weights="gaussian")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network.add_adapter(config, adapter_name=ADAPTER)
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        for parameter in parameters.values():
            parameter.data = parameter.data.float()
        return parameters

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        self.network.disable_adapters()
        try:
            yield
        finally:
            self.network.enable_adapters()

    def save_adapter(self, path: Path, metadata: Mapping[str, str]) -> None:
        layers = get_peft_model_state_dict(self.network, adapter_name=ADAPTER)
        config = self.network.peft_config[ADAPTER].to_dict()
        header = {
            **metadata,
            "format": "pt",
            "lora_adapter_metadata": json.dumps({f"unet.{key}": _plain(value) for key, value in config.items()}),
        }
        save_file({f"unet.{key}": tensor.detach().cpu().contiguous() for key, tensor in layers.items()}, path, header)

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


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set) else value
