"""Recognise out-of-memory errors, of the device or the machine, and faults of the device, without importing torch.

CUDA's libraries have no exception types of their own: RuntimeErrors with texts that differ from library to library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

ExhaustedMemory = Literal["device", "host"]
# Of torch's allocator on a CPU, which has no exception type of its own.
HOST = re.compile(r"DefaultCPUAllocator|Cannot allocate memory")
# torch's allocator, CUDA's runtime and driver, Triton, NCCL, ROCm; then libraries whose workspace does not fit. Of
# these cuBLAS says that it is not initialized, and cuDNN that no algorithm is left.
DEVICE = re.compile(
    r"\b(cuda|triton|nccl|hip|cudnn|cublas)\b.*out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CU(BLAS|DNN|SOLVER|SPARSE|FFT)_(STATUS_)?ALLOC_FAILED|DEVICE_ALLOCATION_FAILED"
    r"|CU(BLAS|SOLVER|SPARSE)_STATUS_NOT_INITIALIZED"
    r"|unable to find an engine to execute|unable to find a valid cudnn algorithm",
    re.IGNORECASE,
)
FAULT = re.compile(
    r"CUDA (driver )?error|Triton Error \[CUDA\]|Cuda failure|CUDA unknown error|No CUDA GPUs are available"
    r"|CUDA driver initialization failed|NCCL (WARN|error)|nccl(Unhandled|System|Internal|Remote)\w*Error"
    r"|cuDNN error|CU(BLAS|DNN|SOLVER|SPARSE|FFT)_(STATUS_)?[A-Z_]+|HIP error|uncorrectable ECC|GPU is lost",
    re.IGNORECASE,
)
# What CUDA reports of a call that is wrong, which is as wrong the next time: errors of the program, or of its build.
OWN_FAULT = re.compile(
    r"device-side assert|no kernel image|invalid (argument|configuration|device|value|resource handle)"
    r"|INVALID_VALUE|BAD_PARAM|NOT_SUPPORTED|ARCH_MISMATCH",
    re.IGNORECASE,
)


def exhausted_memory(error: BaseException | None) -> ExhaustedMemory | None:
    """None for any other error. Libraries that load weights make an error of their own of it."""
    return next((which for one in _chain(error) if (which := _exhausted_by(one)) is not None), None)


def device_fault(error: BaseException | None) -> str | None:
    """What the device or its driver reports of a fault that another attempt may not meet; None for any other error."""
    for one in _chain(error):
        text = str(one)
        if isinstance(one, RuntimeError) and FAULT.search(text) and not OWN_FAULT.search(text):
            return next(line for line in text.splitlines() if FAULT.search(line)).strip()
    return None


def release_frames(error: BaseException) -> None:
    """Drop the tracebacks of ``error`` and its causes: their frames hold the activations of the pass that failed.

    The texts of the whole chain stay.
    """
    for one in _chain(error):
        one.__traceback__ = None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and all that it was raised from or while handling."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__context__, one.__cause__]


def _exhausted_by(error: BaseException) -> ExhaustedMemory | None:
    if isinstance(error, MemoryError):
        return "host"
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return "device"
    if not isinstance(error, RuntimeError | OSError):
        return None
    text = str(error)
    if DEVICE.search(text):
        return "device"
    return "host" if HOST.search(text) else None
