"""LoRA (arXiv 2106.09685), rsLoRA (2312.03732) and DoRA (2402.09353) on a diffusers network, by PEFT."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.families.lora_layer import use_own_arithmetic
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.run import Adapter

ADAPTER = "default"
ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
# Of PEFT's config, what diffusers needs to build it again. It passes every field of the header to the LoraConfig of the
# PEFT that is installed, which raises an error for a field of a later version.
HEADER_FIELDS = (
    "r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "peft_type", "bias",
    "lora_bias", "lora_dropout",
)  # fmt: skip
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def lora_config(adapter: Adapter, targets: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank if adapter.alpha is None else adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.type == "rslora",
        use_dora=adapter.type == "dora",
        target_modules=list(targets if adapter.target_modules == "auto" else adapter.target_modules),
        init_lora_weights="gaussian",
    )


def add_lora(network: Any, config: LoraConfig, *, seed: int) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name, in fp32. Raises BadRun for target modules that the network does not have."""
    require_targets(network, config.target_modules)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_adapter(config, adapter_name=ADAPTER)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    network.eval()  # the new layers too: dropout is on in training steps alone
    use_own_arithmetic(lora_layers(network))
    return parameters


def require_targets(network: nn.Module, targets: Iterable[str]) -> None:
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    field_errors = [
        RunFieldError(
            "adapter.target_modules", repr(target), f"ends of layer names, such as {', '.join(endings(layers))}"
        )
        for target in targets
        if not any(name == target or name.endswith(f".{target}") for name in layers)
    ]
    if field_errors:
        raise BadRun(field_errors)


def endings(layers: Iterable[str]) -> list[str]:
    """A few that occur most often."""
    counted = Counter(re.split(r"\.(?=[a-z])", name)[-1] for name in layers)
    return [ending for ending, _ in counted.most_common(8)]


@contextmanager
def without_lora(network: Any) -> Iterator[None]:
    """DPO and DCO switch the adapter off at every step, so this takes less than a millisecond.

    ``network.disable_adapters()`` would search all modules for LoRA layers, of SDXL more than 7,000, and change every
    parameter's ``requires_grad``.
    """
    layers = lora_layers(network)
    switch(layers, off=True)
    try:
        yield
    finally:
        switch(layers, off=False)


def lora_layers(network: Any) -> tuple[Any, ...]:
    """The network's LoRA layers, found once for the adapters that it has."""
    adapters = tuple(network.peft_config)
    layers: tuple[Any, ...]
    of, names, layers = network.__dict__.get("_lora_layers", (None, None, ()))
    if of is not network.peft_config or names != adapters:
        layers = tuple(module for module in network.modules() if isinstance(module, LoraLayer))
        network.__dict__["_lora_layers"] = network.peft_config, adapters, layers
    return layers


def switch(layers: Iterable[Any], *, off: bool) -> None:
    for layer in layers:
        vars(layer)["_disable_adapters"] = off  # nn.Module's own assignment takes ten times as long


def save_lora(path: Path, networks: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """In diffusers' format; ``networks`` are named as its pipelines name them (unet, transformer, text_encoder).

    The scale is multiplied into B, and the header says alpha = rank: diffusers up to 0.33, diffusers' training scripts
    and other readers that know no alpha take it for the rank.
    """
    tensors: dict[str, Tensor] = {}
    configs: dict[str, object] = {}
    for prefix, network in networks.items():
        config: LoraConfig = network.peft_config[ADAPTER]
        layers = get_peft_model_state_dict(network, adapter_name=ADAPTER, save_embedding_layers=False)
        for key, layer in layers.items():
            scaled = layer.detach() * scale_of(config) if key.endswith("lora_B.weight") else layer.detach()
            tensors[f"{prefix}.{published(prefix, key)}"] = scaled.cpu().contiguous()
        folded = config.to_dict() | {"lora_alpha": config.r, "use_rslora": False}
        configs |= {f"{prefix}.{field}": _plain(folded[field]) for field in HEADER_FIELDS}
    save_file(tensors, path, {**metadata, "format": "pt", "lora_adapter_metadata": json.dumps(configs)})


def scale_of(config: LoraConfig) -> float:
    """What B A is multiplied by; rsLoRA divides alpha by the root of the rank."""
    return float(config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r))


def scales(networks: Mapping[str, Any]) -> dict[str, float]:
    """Of each network's adapter, by its name."""
    return {name: scale_of(network.peft_config[ADAPTER]) for name, network in networks.items()}


@torch.no_grad()
def norm_ratios(networks: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of each layer with DoRA: |W| / |W + dW| by output, (out,) fp32, by "<network>.<published path>".

    ``W`` is the base's weight, dequantised where it is quantised, and ``dW`` the adapter's s B A.
    """
    return {
        f"{prefix}.{published(prefix, name)}": _norm_ratio(layer).cpu()
        for prefix, network in networks.items()
        for name, layer in network.named_modules()
        if isinstance(layer, LoraLayer) and layer.lora_magnitude_vector
    }


def _norm_ratio(layer: Any) -> Tensor:
    (adapter,) = layer.lora_A.keys()
    base: Tensor = dequantize_module_weight(layer.get_base_layer()).float().flatten(1)  # (out, in)
    up, down = (part[adapter].weight.float().flatten(1) for part in (layer.lora_B, layer.lora_A))
    changed = torch.addmm(base, up, down, alpha=layer.scaling[adapter])
    ratio: Tensor = base.norm(dim=1) / changed.norm(dim=1)
    return ratio


def published(network: str, key: str) -> str:
    """Text encoders' layers as transformers named them before version 5.6, which other programs read.

    Their magnitudes by their full names: transformers, which loads them, passes over PEFT's short form.
    """
    if not network.startswith("text_encoder"):
        return key
    whole = f"{key}.weight" if key.endswith(".lora_magnitude_vector") else key
    return whole if whole.startswith("text_model.") else f"text_model.{whole}"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set) else value
