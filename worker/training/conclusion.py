"""How a trainer's end becomes the job's next state: exactly one fenced write."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from store.files.files import NewFile
from store.job_status import JobStatus
from store.jobs import job_leases
from trainer.spec.events import EXIT_DONE, EXIT_INTERRUPTED, Failed
from worker.resources import Resources
from worker.training.attempt import RESULT_PURPOSE, Attempt, store_files

TRANSIENT = ("base_unavailable", "cache_entry_lost", "device_error", "disk_full")  # another attempt may not have it
# Trouble that takes time to pass: an attempt that began at once would meet it again and count as one more crash.
RETRIED_LATER = (*TRANSIENT, "storage_fault")
SIGNALS = {one.value: one.name for one in signal.Signals}  # most real-time signals have a number alone
DIFFUSERS_ADAPTER = "pytorch_lora_weights.safetensors"
CRASHED = (
    "No known error of the request is the cause: have the operator read these last lines and the worker's log, and "
    "submit the job again once the cause is gone."
)
STALLED = (
    "Submit the job again; if that stalls too, the worker's log has the reason, or the operator allows more time by "
    "PAIRTUNE_STALL_SECONDS."
)
KILLED_FOR_MEMORY = (
    "The machine's main memory, or what its container may use of it, ran out, and the kernel ended the trainer. Lower "
    "batch_size, use a smaller base, or have the operator give the worker more memory."
)


@dataclass(frozen=True)
class TrainerEnd:
    """``stopped``: it received a stop, by the user or because the worker stops. ``memory_ran_out``: the kernel ended
    a process of this machine for lack of memory meanwhile."""

    exit_code: int
    stderr: str
    stopped: bool
    stalled_seconds: float | None = None
    memory_ran_out: bool = False


def conclude(resources: Resources, attempt: Attempt, end: TrainerEnd) -> bool:
    """Whether another worker may take the job at once.

    A finished adapter counts even when a cancel came in its last moment: the work is done, and is stored.
    """
    if end.exit_code == EXIT_DONE and attempt.done is not None:
        return _succeed(resources, attempt)
    if attempt.failed is not None and attempt.failed.code in TRANSIENT:
        return crash(resources, attempt, attempt.failed.code, _reason(attempt.failed, end.stderr))
    if attempt.failed is not None:
        return fail(resources, attempt, attempt.failed.code, _reason(attempt.failed, end.stderr))
    if end.stalled_seconds is not None:
        message = (
            f"The trainer said nothing for {end.stalled_seconds:.0f} s and was ended. {STALLED}\n{end.stderr}".strip()
        )
        return crash(resources, attempt, "trainer_stalled", message)
    if end.stopped:
        return give_back(resources, attempt, "The trainer stopped.")
    if end.exit_code == -signal.SIGKILL and end.memory_ran_out:
        return crash(resources, attempt, "out_of_host_memory", f"{KILLED_FOR_MEMORY}\n{end.stderr}".strip())
    message = f"The trainer ended with {describe_exit(end.exit_code)}. {CRASHED}\n{end.stderr}".strip()
    return crash(resources, attempt, "trainer_crashed", message)


def fail(resources: Resources, attempt: Attempt, code: str, message: str) -> bool:
    """False: the job has ended."""
    with resources.sessions.begin() as session:
        job_leases.fail(session, attempt.lease, code=code, message=message)
    return False


def give_back(resources: Resources, attempt: Attempt, message: str) -> bool:
    """Whether the job is queued again; it may have been paused or cancelled meanwhile."""
    with resources.sessions.begin() as session:
        return job_leases.give_back(session, attempt.lease, message) is JobStatus.QUEUED


def crash(resources: Resources, attempt: Attempt, code: str, message: str) -> bool:
    """Whether another worker may take the job at once. After an error of RETRIED_LATER the dispatcher offers it."""
    cap = resources.settings.crash_cap
    with resources.sessions.begin() as session:
        after = job_leases.crash(session, attempt.lease, code=code, message=message, crash_cap=cap)
    return after is JobStatus.QUEUED and code not in RETRIED_LATER


def describe_exit(exit_code: int) -> str:
    """``subprocess`` gives a signal as a negative number."""
    if exit_code == EXIT_INTERRUPTED:
        return f"exit code {exit_code}, as after a SIGTERM, which its worker did not send"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    name = SIGNALS.get(-exit_code, str(-exit_code))
    return f"signal {name}"


def _reason(failed: Failed, stderr: str) -> str:
    """The message; of an internal error with the end of its traceback."""
    message = failed.message.replace("\0", "")  # which PostgreSQL's text cannot hold
    return f"{message}\n{stderr}".strip() if failed.code == "internal_error" else message


def _succeed(resources: Resources, attempt: Attempt) -> bool:
    lease = attempt.lease
    stored = store_files(resources.blobs, attempt.folder / "output")
    promised = attempt.done.files if attempt.done is not None else {}
    if {name: entry["sha256"] for name, entry in stored.items()} != promised:
        message = "The output's files are not the ones that the trainer wrote."
        return crash(resources, attempt, "output_damaged", message)
    results = [
        NewFile(lease.project_id, name, RESULT_PURPOSE, entry["bytes"], entry["sha256"])
        for name, entry in sorted(stored.items(), key=lambda item: result_order(item[0]))
    ]
    with resources.sessions.begin() as session:
        job_leases.succeed(session, lease, results=results)
    return False


def result_order(name: str) -> tuple[bool, bool, str]:
    """The sort key of a result file: weights first, and of them the file that diffusers loads by itself."""
    return name != DIFFUSERS_ADAPTER, not name.endswith(".safetensors"), name
