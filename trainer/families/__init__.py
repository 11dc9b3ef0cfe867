"""Model families, one file each: how a base model encodes, predicts and saves its adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from trainer.families.family import Family
from trainer.families.hub import Progress, no_progress
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import DEFAULT_ADAPTER, DEFAULT_COMPUTE, Adapter, Base, Compute


def open_family(
    base: Base,
    adapter: Adapter = DEFAULT_ADAPTER,
    compute: Compute = DEFAULT_COMPUTE,
    progress: Progress = no_progress,
) -> Family:
    """Open the base model's files without loading weights; ``progress`` gets the megabytes of a download.

    Raises BadRun for one that cannot be trained, BaseUnavailable if the hub cannot be reached for it.
    """
    return opener(base.family)(base, adapter, compute, progress)


def opener(family: FamilyName) -> Callable[[Base, Adapter, Compute, Progress], Family]:
    """The family's ``open_base``; imports the libraries of this family alone."""
    match family:
        case "sd1" | "sd2":
            from trainer.families import sd

            return sd.open_base
        case "sdxl":
            from trainer.families import sdxl

            return sdxl.open_base
        case "sd3":
            from trainer.families import sd3

            return sd3.open_base
        case _:
            assert_never(family)
