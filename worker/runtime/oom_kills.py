"""Whether the kernel has ended processes for lack of memory: a SIGKILL alone does not say who sent it."""

from __future__ import annotations

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def count() -> int:
    """Since the machine was started, on all of it, those of containers at their own limit included; 0 where the system
    does not say."""
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
