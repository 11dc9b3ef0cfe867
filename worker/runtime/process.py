"""Starting and ending a child that must not outlive its parent, whatever kills the parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What Python, the device's libraries and the hub's client read. Everything else may be a secret, and stays here.
FOR_PROGRAMS = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "DO_NOT_TRACK"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    }
)
FAMILIES_FOR_PROGRAMS = (
    *("LC_", "XDG_", "PYTHON", "COVERAGE_", "MALLOC_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("CUDA_", "NVIDIA_", "NCCL_", "CUBLAS_", "CUDNN_", "ROCR_", "ROCM_", "HIP_", "HSA_", "TORCH", "PYTORCH_"),
    *("TRITON_", "BNB_", "HF_HOME", "HF_HUB_", "HF_ENDPOINT", "HF_XET_", "HUGGINGFACE_HUB_CACHE"),
    *("TRANSFORMERS_", "DIFFUSERS_", "SAFETENSORS_", "TOKENIZERS_"),
)
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux). ``parent`` is the parent's id before the fork."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program needs that connects to nothing of ours; of secrets, only the hub's token."""
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in FOR_PROGRAMS or name.upper().startswith(FAMILIES_FOR_PROGRAMS)
    }


def start(command: Sequence[str], *, cwd: Path, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """Run a command in a process group of its own, its stdout piped here, without the deployment's secrets."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=without_secrets(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()),  # one ctypes call on a library loaded before the fork
    )


def start_logged(
    command: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Run a long-lived service in a process group of its own, all that it prints appended to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )


def signal_child(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the child alone, which then ends its own children in good order."""
    if child.poll() is None:
        child.send_signal(number)


def signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the child and everything that it started; one that has ended is left alone."""
    if child.poll() is None:
        os.killpg(child.pid, number)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child's process group, and reap the child."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _die_with(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        die_with_parent(parent)

    return in_child
