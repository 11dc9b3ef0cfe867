"""A tiny base of every family. All have native size 32 x 32 and sides in multiples of 4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.trainer.families.tiny_sd import save_sd1, save_sd2
from tests.trainer.families.tiny_sd3 import save_sd3
from tests.trainer.tiny_sdxl import save_base as save_sdxl
from trainer.spec.family_facts import FamilyName

SAVE_BASE: dict[FamilyName, Callable[[Path], Path]] = {
    "sd1": save_sd1,
    "sd2": save_sd2,
    "sdxl": save_sdxl,
    "sd3": save_sd3,
}
