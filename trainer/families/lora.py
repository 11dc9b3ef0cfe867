"""LoRA (arXiv 2106.09685), rsLoRA (2312.03732) and DoRA (2402.09353) on a diffusers network, by PEFT."""

from __future__ import annotations

import json
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
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.families.lora_layer import use_own_arithmetic
from trainer.runtime.errors import BadRun, FieldError
from trainer.spec.run import Adapter

ADAPTER = "default"
ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
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
        FieldError("adapter.target_modules", repr(target), f"ends of layer names, such as {', '.join(endings(layers))}")
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
    """In diffusers' format; ``networks`` are named as its pipelines name them (unet, transformer, text_encoder)."""
    tensors: dict[str, Tensor] = {}
    configs: dict[str, object] = {}
    for prefix, network in networks.items():
        layers = get_peft_model_state_dict(network, adapter_name=ADAPTER, save_embedding_layers=False)
        for key, layer in layers.items():
            tensors[f"{prefix}.{published(prefix, key)}"] = layer.detach().cpu().contiguous()
        config = network.peft_config[ADAPTER].to_dict()
        configs |= {f"{prefix}.{key}": _plain(value) for key, value in config.items()}
    save_file(tensors, path, {**metadata, "format": "pt", "lora_adapter_metadata": json.dumps(configs)})


def published(network: str, key: str) -> str:
    """Text encoders' layers as transformers named them up to version 4, which other programs read.

    Their magnitudes by their full names: transformers, which loads them, passes over PEFT's short form.
    """
    if not network.startswith("text_encoder"):
        return key
    whole = f"{key}.weight" if key.endswith(".lora_magnitude_vector") else key
    return whole if whole.startswith("text_model.") else f"text_model.{whole}"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set) else value
