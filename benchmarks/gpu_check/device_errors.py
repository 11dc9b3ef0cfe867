"""What this machine's device is, and how the trainer classes the errors that it reports.

``python -m benchmarks.gpu_check.device_errors facts`` and ``... device_errors provoke KIND`` print JSON.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from trainer.export.metadata import versions
from trainer.families.precision import compute_field_errors
from trainer.runtime.device import base_dtype, choose_device, device_name
from trainer.runtime.hardware_errors import device_fault, exhausted_memory
from trainer.spec.run import Compute

STORE_AT_AN_ADDRESS = 'extern "C" __global__ void store(float* unused) { *(float*)0x10 = 1.0f; }'


def main(command: str, *arguments: str) -> None:
    # A fault may end the process before its output is written.
    print(json.dumps(facts() if command == "facts" else provoke(*arguments)), flush=True)


def facts() -> dict[str, Any]:
    """``cannot`` gives the reason for each compute option that the trainer refuses on this machine."""
    device = choose_device()
    options: dict[str, dict[str, Any]] = {
        **{name: {"base_precision": name} for name in ("fp32", "bf16", "fp16", "int8", "nf4")},
        "adamw8bit": {"optimizer": "adamw8bit"},
        "compile": {"compile": True},
    }
    refused = {name: compute_field_errors(Compute.model_validate(option), device) for name, option in options.items()}
    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "name": device_name(device),
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else 0,
        "gpus": torch.cuda.device_count() if cuda else 0,
        "driver": driver() if cuda else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {**versions(), "bitsandbytes": bitsandbytes()},
        "default_precision": str(base_dtype(device)).removeprefix("torch."),
        "cannot": {name: str(errors[0]) for name, errors in refused.items() if errors},
    }


def bitsandbytes() -> str | None:
    try:
        return version("bitsandbytes")
    except PackageNotFoundError:
        return None


def driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return found.stdout.partition("\n")[0] or None


def provoke(kind: str) -> dict[str, Any]:
    """``text`` and ``type`` of the error, and what the trainer takes it for; no text where none was raised."""
    try:
        KINDS[kind]()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except (RuntimeError, MemoryError, OSError) as error:
        fault = device_fault(error)
        taken_for = exhausted_memory(error) or ("fault" if fault else "program")
        return {"text": str(error)[:500], "type": type(error).__name__, "taken_for": taken_for}
    return {"text": None, "type": None, "taken_for": None}


def exhaust_host() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def exhaust_device() -> None:
    device = choose_device()
    torch.empty(2 * torch.cuda.get_device_properties(device).total_memory, dtype=torch.uint8, device=device)


def fill() -> list[torch.Tensor]:
    """All of the device's memory but less than a MiB, outside of torch's cache."""
    blocks, size = [], 2**30
    while size >= 2**20:
        try:
            blocks.append(torch.empty(size, dtype=torch.uint8, device=choose_device()))
        except torch.OutOfMemoryError:
            size //= 2
    return blocks


def multiply_on_a_full_device() -> None:
    """cuBLAS makes its handle and workspace at the first product."""
    factor = torch.ones(8, 8, device=choose_device())
    blocks = fill()
    factor @ factor
    del blocks


def convolve_on_a_full_device() -> None:
    image, kernel = (
        torch.ones(1, 64, 256, 256, device=choose_device()),
        torch.ones(64, 64, 3, 3, device=choose_device()),
    )
    blocks = fill()
    torch.nn.functional.conv2d(image, kernel)
    del blocks


def open_a_full_device() -> None:
    """The driver's own error: another process opens the device that this one has filled."""
    blocks = fill()
    command = [sys.executable, "-c", "import torch; torch.zeros(1, device='cuda')"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    del blocks
    if found.returncode:
        last = next(line for line in found.stderr.splitlines() if "rror: " in line)
        raise RuntimeError(last.partition("rror: ")[2])


def index_outside() -> None:
    """A device-side assertion: a fault of the program, which another attempt meets again."""
    torch.ones(4, device=choose_device())[torch.full((1,), 9, device=choose_device())].sum().item()


def store_outside() -> None:
    """An illegal memory access, as failing hardware reports too."""
    kernel = torch.cuda._compile_kernel(STORE_AT_AN_ADDRESS, "store")
    kernel(grid=(1, 1, 1), block=(1, 1, 1), args=[torch.zeros(1, device=choose_device())])
    torch.cuda.synchronize()


KINDS: dict[str, Callable[[], None]] = {
    "host": exhaust_host,
    "allocation": exhaust_device,
    "product": multiply_on_a_full_device,
    "convolution": convolve_on_a_full_device,
    "open": open_a_full_device,
    "assertion": index_outside,
    "access": store_outside,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
