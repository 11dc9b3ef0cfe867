"""The frozen base's precision, and which compute options this machine does not support."""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch

from trainer.runtime.device import base_dtype, choose_device
from trainer.runtime.errors import RunFieldError
from trainer.spec.run import Compute

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILERS = {"cuda": ("C", ("gcc", "clang", "cc")), "cpu": ("C++", ("g++", "clang++", "c++"))}
OLDEST_BITSANDBYTES = (0, 48)  # diffusers moves an int8 network to its device from there on
QUANTISED = ("int8", "nf4")


def compute_field_errors(compute: Compute, device: torch.device) -> list[RunFieldError]:
    """Options that this machine does not support; checked before any work."""
    field_errors = []
    reason = _why_no_bitsandbytes(device)
    if compute.base_precision in QUANTISED and reason:
        field_errors.append(
            RunFieldError(
                "compute.base_precision",
                repr(compute.base_precision),
                f"here auto or {', '.join(DTYPES)}: {reason}",
            )
        )
    if compute.optimizer == "adamw8bit" and reason:
        field_errors.append(RunFieldError("compute.optimizer", "'adamw8bit'", f"here adamw: {reason}"))
    language, compilers = COMPILERS[device.type]
    if compute.compile and not any(which(compiler) for compiler in compilers):
        field_errors.append(
            RunFieldError(
                "compute.compile", "True", f"here false: it needs a {language} compiler ({', '.join(compilers)})"
            )
        )
    return field_errors


def _why_no_bitsandbytes(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "it needs a CUDA GPU"
    if find_spec("bitsandbytes") is None:
        return "it needs bitsandbytes (pip install 'pairtune[gpu]')"
    found = version("bitsandbytes")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST_BITSANDBYTES:
        oldest = ".".join(map(str, OLDEST_BITSANDBYTES))
        return f"it needs bitsandbytes {oldest} or later, and {found} is installed (pip install 'pairtune[gpu]')"
    return None


def dtype_of(compute: Compute, device: torch.device) -> torch.dtype:
    """Of activations; a quantised base computes in the precision that "auto" takes."""
    return DTYPES.get(compute.base_precision) or base_dtype(device)


def reads_half(compute: Compute) -> bool:
    """Whether weights are read in half precision where a base has them so: half as much to download and to read."""
    return dtype_of(compute, choose_device()) != torch.float32


def loading(compute: Compute, device: torch.device) -> dict[str, Any]:
    """Arguments for ``from_pretrained`` of the denoiser."""
    dtype = dtype_of(compute, device)
    if compute.base_precision not in QUANTISED:
        return {"torch_dtype": dtype}
    from diffusers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if compute.base_precision == "int8"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    )
    return {"torch_dtype": dtype, "quantization_config": config}


def placed(network: Any, compute: Compute, device: torch.device, memory_format: torch.memory_format) -> Any:
    """On its device; quantised weights are there already and have no memory format."""
    if compute.base_precision in QUANTISED:
        return network.to(device)
    return network.to(device, memory_format=memory_format)
