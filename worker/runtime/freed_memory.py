"""Tune malloc so that memory freed by decoding an image is reused for the next one."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
MMAP_THRESHOLD = 32 * 1024 * 1024  # bytes; the most that glibc takes
TRIM_THRESHOLD = 128 * 1024 * 1024  # bytes, at the end of the heap


def keep_freed_memory() -> None:
    """For the whole process, from now on. An image of a megapixel takes megabytes, which glibc by itself hands back to
    the system after each one: mapping 4,100 pages again was 9 of the 21 ms that a WebP of 1024 x 1024 took. Other C
    libraries have no such thresholds."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
