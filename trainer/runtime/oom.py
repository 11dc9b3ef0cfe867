"""Recognise out-of-memory errors, of the device or the machine, without importing torch."""

from __future__ import annotations

from typing import Literal

ExhaustedMemory = Literal["device", "host"]
# Of torch's allocator on a CPU, which has no exception type of its own; CUDA's libraries have none either.
HOST = ("DefaultCPUAllocator", "Cannot allocate memory")
DEVICE = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def exhausted_memory(error: BaseException | None) -> ExhaustedMemory | None:
    """None for any other error. Libraries that load weights make an error of their own of it."""
    while error is not None:
        which = _exhausted_by(error)
        if which is not None:
            return which
        error = error.__cause__ or error.__context__
    return None


def release_frames(error: BaseException) -> None:
    """Drop the tracebacks of ``error`` and its causes: their frames hold the activations of the pass that failed.

    The texts of the whole chain stay.
    """
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        one = chain.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            chain += [one.__cause__, one.__context__]


def _exhausted_by(error: BaseException) -> ExhaustedMemory | None:
    if isinstance(error, MemoryError):
        return "host"
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return "device"
    if not isinstance(error, RuntimeError | OSError):
        return None
    said = str(error)
    if any(words in said for words in DEVICE):
        return "device"
    return "host" if any(words in said for words in HOST) else None
