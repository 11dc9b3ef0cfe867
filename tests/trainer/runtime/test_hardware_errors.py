"""What CUDA, its libraries and its driver raise, in their own words, and what the trainer reports of it."""

from __future__ import annotations

import pytest
import torch

from trainer.program import unexpected
from trainer.runtime.device import explain_out_of_memory
from trainer.runtime.errors import OutOfMemory
from trainer.runtime.hardware_errors import device_fault, exhausted_memory
from trainer.spec.events import Event, Failed
from trainer.training.memory_plan import MemoryPlan, first_that_fits

pytestmark = pytest.mark.unit

OUT_OF_MEMORY = [
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "Triton Error [CUDA]: out of memory",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "NCCL error in: ProcessGroupNCCL.cpp:3356, unhandled cuda error, NCCL version 2.27.5\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
    "HIP out of memory. Tried to allocate 2.00 GiB",
]
FAULTS = [
    "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: the launch timed out and was terminated",
    "CUDA driver error: unknown error",
    "CUDA unknown error - this may be due to an incorrectly set up environment",
    "No CUDA GPUs are available",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "NCCL error in: ProcessGroupNCCL.cpp:3356, unhandled system error, NCCL version 2.27.5",
]
OTHERS = [
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "CUDA error: device-side assert triggered",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: invalid device ordinal",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`",
]


def reported(error: Exception) -> Failed:
    events: list[Event] = []
    unexpected(events.append)(type(error), error, None)
    (event,) = events
    assert isinstance(event, Failed)
    return event


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_a_lack_of_the_devices_memory_is_known_by_every_text_for_it(text: str) -> None:
    assert exhausted_memory(RuntimeError(text)) == "device"
    assert reported(RuntimeError(text)).code == "out_of_memory"


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_of_the_device_says_what_it_reports_and_that_training_goes_on(text: str) -> None:
    assert exhausted_memory(RuntimeError(text)) is None
    failed = reported(RuntimeError(text))
    assert failed.code == "device_error"
    assert text.partition("\n")[0] in failed.message
    assert "goes on from the last checkpoint" in failed.message


@pytest.mark.parametrize("text", OTHERS)
def test_errors_of_the_program_stay_what_they_are(text: str) -> None:
    assert (exhausted_memory(RuntimeError(text)), device_fault(RuntimeError(text))) == (None, None)
    assert reported(RuntimeError(text)).code == "internal_error"


def raised_while_handling(first: Exception, second: Exception, *, cause: bool) -> Exception:
    try:
        try:
            raise first
        except RuntimeError as error:
            if cause:
                raise second from error
            raise second  # noqa: B904  (with a context and no cause)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("cause", [True, False])
@pytest.mark.parametrize(("text", "code"), [(OUT_OF_MEMORY[4], "out_of_memory"), (FAULTS[0], "device_error")])
def test_it_is_known_through_the_errors_that_libraries_make_of_it(text: str, code: str, cause: bool) -> None:
    error = raised_while_handling(RuntimeError(text), RuntimeError("the backend failed"), cause=cause)
    assert reported(error).code == code


PLANS = [MemoryPlan(size, gradient_checkpointing=False, streamed=False) for size in (2, 1)]


def first_that_does_not_raise(text: str) -> MemoryPlan:
    def attempt(plan: MemoryPlan) -> None:
        with explain_out_of_memory(torch.device("cpu"), plan.batch_size):
            if plan != PLANS[-1]:
                raise RuntimeError(text)

    return first_that_fits(iter(PLANS), attempt)


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_a_plan_that_fails_in_any_of_these_words_leads_to_the_next(text: str) -> None:
    assert first_that_does_not_raise(text) == PLANS[1]


def test_a_plan_that_meets_a_fault_of_the_device_is_the_last() -> None:
    with pytest.raises(RuntimeError, match="ECC") as raised:
        first_that_does_not_raise(FAULTS[0])
    assert not isinstance(raised.value, OutOfMemory)
