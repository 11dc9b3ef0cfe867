"""The device of a run: which one, its default precision, and its memory."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.runtime.errors import OutOfMemory
from trainer.runtime.hardware_errors import exhausted_memory


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
    """Of the frozen base. A GPU without bf16 gets fp32: fp16 would need its gradients scaled."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


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


@contextmanager
def explain_out_of_memory(device: torch.device, batch_size: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        which = exhausted_memory(error)
        if which is None:
            raise
        raise OutOfMemory(which, peak_memory(device), batch_size) from error
