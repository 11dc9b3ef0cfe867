"""Bytes that one pair holds and moves in networks of real size, counted without computing anything.

FakeTensorMode gives every operation its shapes and no numbers, so a network of any size is counted on any machine, and
the figures are the same every time. *Held* is what the forward pass leaves for the backward pass; *moved* is the sum of
the inputs and outputs of all kernels of both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.families.lora import ATTENTION, add_lora, lora_config
from trainer.families.sd3 import TARGETS
from trainer.spec.run import Adapter

# unet/config.json of stabilityai/stable-diffusion-xl-base-1.0, without what UNet2DConditionModel has by default.
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# unet/config.json of stable-diffusion-v1-5/stable-diffusion-v1-5, likewise.
SD15: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
# transformer/config.json of stabilityai/stable-diffusion-3-medium-diffusers.
SD3: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 192,
}
IMAGES = 2  # a pair's


@dataclass(frozen=True)
class Traffic:
    """``held`` and ``moved`` are in bytes; ``kernels`` counts operations that move any."""

    held: int
    moved: int
    kernels: int


@dataclass(frozen=True)
class Network:
    """``new`` builds the network; ``inputs`` makes its arguments, of which the first is the noisy latents."""

    new: Callable[[], Any]
    inputs: Callable[[torch.dtype], Mapping[str, Any]]
    targets: tuple[str, ...]


def unet(config: Mapping[str, Any], tokens: int = 77) -> Network:
    def inputs(dtype: torch.dtype) -> dict[str, Any]:
        side, width = config["sample_size"], config["cross_attention_dim"]
        arguments: dict[str, Any] = {
            "sample": torch.zeros(IMAGES, 4, side, side, dtype=dtype),
            "timestep": torch.zeros(IMAGES, dtype=torch.int64),
            "encoder_hidden_states": torch.zeros(IMAGES, tokens, width, dtype=dtype),
        }
        if config.get("addition_embed_type") == "text_time":
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            arguments["added_cond_kwargs"] = {
                "text_embeds": torch.zeros(IMAGES, pooled, dtype=dtype),
                "time_ids": torch.zeros(IMAGES, 6),
            }
        return arguments

    return Network(lambda: UNet2DConditionModel(**config), inputs, ATTENTION)


def transformer(config: Mapping[str, Any], tokens: int = 77 + 256) -> Network:
    def inputs(dtype: torch.dtype) -> dict[str, Any]:
        side = config["sample_size"]
        return {
            "hidden_states": torch.zeros(IMAGES, config["in_channels"], side, side, dtype=dtype),
            "encoder_hidden_states": torch.zeros(IMAGES, tokens, config["joint_attention_dim"], dtype=dtype),
            "pooled_projections": torch.zeros(IMAGES, config["pooled_projection_dim"], dtype=dtype),
            "timestep": torch.zeros(IMAGES),
        }

    return Network(lambda: SD3Transformer2DModel(**config), inputs, TARGETS)


REAL_SIZE = {"SDXL": unet(SDXL), "SD 1.5": unet(SD15), "SD3 medium": transformer(SD3)}


def count(network: Network, adapter: Adapter | None, *, checkpointing: bool = False) -> Traffic:
    """One forward and backward pass over a pair, in bf16; without an adapter, back to the noisy latents."""
    model = in_bf16(network.new)
    if adapter is not None:
        add_lora(model, lora_config(adapter, network.targets), seed=0)
    with FakeTensorMode():
        on_fake_cpu(model)
        if checkpointing:
            model.enable_gradient_checkpointing()
        arguments = dict(network.inputs(torch.bfloat16))
        if adapter is None:
            arguments[next(iter(arguments))].requires_grad_()
        with Kernels() as kernels:
            prediction = model(**arguments, return_dict=False)[0]
            held = kernels.live_bytes()
            prediction.float().square().mean().backward()
    return Traffic(held, kernels.moved, kernels.count)


def in_bf16(new: Callable[[], Any]) -> Any:
    """Frozen, without storage."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return new().requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def on_fake_cpu(model: nn.Module) -> None:
    """Attention on the meta device would be another kernel than on a CPU or a GPU."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


class Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]  # nor are its methods' types known to torch's stub
    """Counts what the kernels inside move, and which of their outputs are still in memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved = 0
        self.count = 0
        self.storages: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        outputs = [one for one in tree_leaves(results) if isinstance(one, Tensor)]
        earlier = {one.untyped_storage()._cdata for one in inputs}
        new = [one for one in outputs if one.untyped_storage()._cdata not in earlier]
        if new or func._schema.is_mutable:  # not a view
            self.count += 1
            self.moved += sum(one.numel() * one.element_size() for one in [*inputs, *outputs])
        for one in new:
            storage = one.untyped_storage()
            self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        return results

    def live_bytes(self) -> int:
        return sum(size for storage, size in self.storages.values() if not storage.expired())
