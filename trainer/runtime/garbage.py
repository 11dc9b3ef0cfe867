"""The garbage collector, kept away from what stays for the whole process.

The libraries that a run imports are some million objects that nothing ever frees. The collector walked all of them
again and again: while they were imported, whenever memory was freed, and once more at the end of the process, in all
two to three seconds of a processor.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_objects() -> Iterator[None]:
    """What is created inside stays: nothing is collected meanwhile, nor looked at afterwards."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave_everything() -> None:
    """At the end of the process, which gives back its memory as a whole."""
    gc.freeze()
