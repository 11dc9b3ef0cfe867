"""The device of a run: which one, its default precision, and its memory."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.runtime.errors import OutOfMemory
from trainer.runtime.hardware_errors import exhausted_memory

FP16_TENSOR_CORES = (7, 0)  # compute capability: V100, T4
MARGIN = 0.05  # of a GPU's memory


def choose_device() -> torch.device:
    """This process's GPU by its number: "cuda" alone means CUDA's current device, which is another in new threads."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def use_in_this_thread(device: torch.device) -> None:
    """Each new thread of a process begins with GPU 0, where even pinned memory would open a context."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def device_name(device: torch.device) -> str:
    """The GPU's name and memory, which decide what fits; "cpu" otherwise."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory} bytes"


def base_dtype(device: torch.device) -> torch.dtype:
    """Of the frozen base: bf16 on a GPU that has it, fp16 on one with tensor cores for that alone, else fp32."""
    if device.type != "cuda":
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= FP16_TENSOR_CORES else torch.float32


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on a GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more; networks hold cycles, which only the collector finds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def memory_margin(device: torch.device) -> int:
    """Bytes of a GPU that a memory plan leaves free: for shapes that were not tried, fragments and other processes."""
    if device.type != "cuda":
        return 0
    usable = torch.cuda.get_device_properties(device).total_memory * torch.cuda.get_per_process_memory_fraction(device)
    return int(MARGIN * usable)


@contextmanager
def memory_reserved(device: torch.device, size: int) -> Iterator[None]:
    """Inside, ``size`` bytes of the device are in use. Raises torch's out-of-memory error if it does not have them."""
    block = torch.empty(size, dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del block


@contextmanager
def explain_out_of_memory(device: torch.device, batch_size: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        which = exhausted_memory(error)
        if which is None:
            raise
        raise OutOfMemory(which, peak_memory(device), batch_size) from error
