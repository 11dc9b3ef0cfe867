"""What large images took of the process's memory goes back to the system once they are done with."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # glibc's malloc.h
# Pillow's blocks (16 MiB) and what it and numpy take of a large image are above it, what a usual request takes below.
LARGE_BYTES = 4 * 1024 * 1024


def give_large_pieces_back() -> None:
    """For the whole process, from now on: each large piece of memory is mapped alone, and unmapped when it is free.

    Left to itself, glibc raises this threshold to the largest piece that was ever free, up to 32 MiB, and keeps smaller
    ones for the thread that had them: after large images that was up to 800 MB for each of the server's threads.
    Other C libraries have no such threshold.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
