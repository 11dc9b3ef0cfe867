"""The trainer's errors: everything that ends a run early.

TrainerError
├── BadRun           the run directory can never train: all errors of spec and data at once
├── BaseUnavailable  the hub cannot be reached for the base model: try again later
├── Interrupted      SIGTERM: run again to go on
├── NonFiniteLoss    training diverged
├── OutOfMemory      the batch does not fit the device, or the machine
├── ImageTooLarge  an image does not
├── DeviceFault    the GPU or its driver failed: run again to go on
├── RunInUse         another process trains in this run directory
├── CacheEntryLost   what was cached is gone or damaged: run again
├── CacheTooSmall    the run's encoded images and prompts exceed the cache's bound
├── DiskFull         nowhere to write a checkpoint, a cache entry or the output
└── ExportMismatch   the written adapter does not reproduce the trained network
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.runtime.hardware_errors import ExhaustedMemory


@dataclass(frozen=True)
class RunFieldError:
    """One thing to correct: where it is, what was given, and what would be accepted."""

    field: str
    given: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}: given {self.given}; {self.allowed}"


class TrainerError(Exception):
    """``str(error)`` says what happened and what to do about it."""

    code = "trainer_error"


class BadRun(TrainerError):
    def __init__(self, field_errors: Sequence[RunFieldError], code: str = "bad_spec") -> None:
        super().__init__("\n".join(str(field_error) for field_error in field_errors))
        self.field_errors = tuple(field_errors)
        self.code = code


class BaseUnavailable(TrainerError):
    code = "base_unavailable"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(
            f"The hub cannot be reached for {source!r}, of which not all is here. Try again later. {reason}"
        )
        self.source = source


class Interrupted(TrainerError):
    code = "interrupted"


class NonFiniteLoss(TrainerError):
    code = "non_finite_loss"

    def __init__(self, step: int, pairs: Sequence[str], last_good_step: int, *, gradient_alone: bool = False) -> None:
        what = "The gradient was not finite, though the loss was," if gradient_alone else "The loss was not finite"
        advice = "Lower learning_rate or max_grad_norm, or check these pairs."
        if gradient_alone:
            advice += " A base in fp16 overflows more easily than one in bf16."
        super().__init__(
            f"{what} at step {step}, pairs {', '.join(pairs)}. "
            f"Stopped; the last good checkpoint is step {last_good_step}. {advice}"
        )
        self.step = step
        self.pairs = tuple(pairs)


def out_of_memory_code(exhausted_memory: ExhaustedMemory) -> str:
    return "out_of_memory" if exhausted_memory == "device" else "out_of_host_memory"


def out_of_memory_message(exhausted_memory: ExhaustedMemory) -> str:
    """Where no size that the user chose is known to be the reason."""
    whose = "GPU memory" if exhausted_memory == "device" else "The machine's main memory"
    return (
        f"{whose} ran out other than in a training step, so a smaller batch_size need not help. Use a smaller base or "
        f"base_precision, or a worker with more memory that nothing else uses."
    )


class OutOfMemory(TrainerError):
    """The device's memory, or the machine's main memory where the CPU is the device or something other than the network
    was too large for it."""

    def __init__(self, exhausted_memory: ExhaustedMemory, peak_bytes: int, batch_size: int) -> None:
        whose = "GPU memory" if exhausted_memory == "device" else "the machine's main memory"
        super().__init__(
            f"Out of {whose} with batch_size {batch_size} (peak {peak_bytes / 2**20:.0f} MiB). "
            f"Halve batch_size and double gradient_accumulation: the training is the same, in smaller pieces."
        )
        self.code = out_of_memory_code(exhausted_memory)
        self.exhausted_memory, self.peak_bytes, self.batch_size = exhausted_memory, peak_bytes, batch_size


class DeviceFault(TrainerError):
    code = "device_error"

    def __init__(self, reported: str) -> None:
        super().__init__(
            f"The GPU or its driver failed: {reported}. Run again: training goes on from the last checkpoint. If it "
            f"fails again, check the GPU (nvidia-smi -q, and Xid lines of the kernel's log) or use another worker."
        )


class ImageTooLarge(TrainerError):
    def __init__(self, exhausted_memory: ExhaustedMemory, width: int, height: int, peak_bytes: int) -> None:
        whose = "GPU memory" if exhausted_memory == "device" else "the machine's main memory"
        super().__init__(
            f"Out of {whose} sampling {width} x {height} pixels (peak {peak_bytes / 2**20:.0f} MiB). Ask for a smaller "
            f"size, or again when nothing else runs there."
        )
        self.code = out_of_memory_code(exhausted_memory)
        self.width, self.height, self.peak_bytes = width, height, peak_bytes


class RunInUse(TrainerError):
    code = "run_in_use"

    def __init__(self, directory: str) -> None:
        super().__init__(f"Another process is training in {directory}. Wait for its end, or use another directory.")
        self.directory = directory


class CacheEntryLost(TrainerError):
    code = "cache_entry_lost"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The cache has lost what this run put there: {path} ({reason}). Run again: it will be computed again."
        )
        self.path = path


class CacheTooSmall(TrainerError):
    code = "cache_too_small"

    def __init__(self, needed: int, bound: int) -> None:
        super().__init__(
            f"This run needs about {needed / 2**30:.3g} GiB of the cache, whose bound is {bound / 2**30:.3g} GiB. "
            f"Have the operator raise the bound (PAIRTUNE_CACHE_BYTES, --cache-bytes), or lower max_steps, resolution "
            f"or validation.max_pairs, or turn horizontal_flip off: only what the steps visit is cached."
        )
        self.needed, self.bound = needed, bound


class DiskFull(TrainerError):
    code = "disk_full"

    def __init__(self, path: str) -> None:
        super().__init__(f"No space left to write {path}. Free some and run again: the last checkpoint is whole.")


class ExportMismatch(TrainerError):
    code = "export_mismatch"

    def __init__(self, file: str, difference: float, tolerance: float, what: str) -> None:
        super().__init__(
            f"The exported {file}, loaded again, changes {what} by {difference:.3g} of its size (allowed "
            f"{tolerance:.3g}). This is a fault of the trainer: report it with this message; the checkpoints are whole."
        )
