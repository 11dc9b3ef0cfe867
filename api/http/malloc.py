"""Tune malloc so that large allocations, such as decoded images, return to the operating system."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # glibc's malloc.h
# Pillow's blocks (16 MiB) and its and numpy's buffers for a large image are above it; usual requests stay below.
LARGE_BYTES = 4 * 1024 * 1024


def return_large_allocations() -> None:
    """For the whole process, from now on: malloc maps each large allocation separately and unmaps it when it is freed.

    By default, glibc raises this threshold to the largest allocation that was ever freed, up to 32 MiB, and keeps
    smaller ones for their thread: after large images that was up to 800 MB for each of the server's threads.
    Other C libraries have no such threshold.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
