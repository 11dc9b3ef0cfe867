"""Sample the same prompts from the same seeds as training goes on: ``samples/`` of a run directory.

``samples/step-00000100/0.png``, ... and ``samples/grid.png``: a row for each step, the base's first; of many steps,
``ROWS`` of them.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainer.runtime.atomic_io import atomic_directory, remove_partial_files, write_atomically
from trainer.sampling.grid import GridRow, fitted, grid
from trainer.sampling.sampler import Sampler, png_bytes
from trainer.spec.buckets import Bucket
from trainer.spec.events import SampleWritten

FOLDER, GRID = "samples", "grid.png"
ROWS = 24  # of the grid, however many steps were sampled: with 16 prompts 150 MB while it is put together
_STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Samples:
    """Image ``i`` is sampled from ``prompts[i]`` and ``seeds[i]``."""

    directory: Path
    sampler: Sampler
    prompts: Sequence[str]
    prompt_keys: Sequence[str]
    seeds: Sequence[int]
    size: Bucket

    def write(self, step: int, check: Callable[[], None], progress: Callable[[int, int], None]) -> SampleWritten:
        """Sample with the network as it is; a step whose files exist is not sampled again."""
        started = time.monotonic()
        progress(0, len(self.prompts))
        folder = self.directory / FOLDER / f"step-{step:08d}"
        if not folder.exists():
            images = self.sampler.sample(self.prompt_keys, seeds=self.seeds, size=self.size, check=check)
            with atomic_directory(folder) as partial:
                for index, image in enumerate(images):
                    image.save(partial / f"{index}.png")
        rows = [row for at in thin_out(self._steps(), ROWS) if (row := self._row(at)) is not None]
        write_atomically(self.directory / FOLDER / GRID, png_bytes(grid(self.prompts, rows)))
        return SampleWritten(
            step=step,
            paths=tuple(f"{FOLDER}/{folder.name}/{index}.png" for index in range(len(self.prompts))),
            grid=f"{FOLDER}/{GRID}",
            seconds=time.monotonic() - started,
        )

    def remove_after(self, step: int) -> None:
        """Steps that a resumed run will come to again, and what a killed one left unfinished; -1: everything."""
        if (self.directory / FOLDER).exists():
            remove_partial_files(self.directory / FOLDER)
        for later in (at for at in self._steps() if at > step):
            shutil.rmtree(self.directory / FOLDER / f"step-{later:08d}")
        if not self._steps():
            (self.directory / FOLDER / GRID).unlink(missing_ok=True)

    def _steps(self) -> list[int]:
        folder = self.directory / FOLDER
        if not folder.exists():
            return []
        return sorted(int(match[1]) for entry in folder.iterdir() if (match := _STEP.fullmatch(entry.name)))

    def _row(self, step: int) -> GridRow | None:
        files = [self.directory / FOLDER / f"step-{step:08d}" / f"{index}.png" for index in range(len(self.prompts))]
        if not all(file.exists() for file in files):
            return None
        return GridRow("base" if step == 0 else f"step {step}", [_read(file) for file in files])


def thin_out(steps: Sequence[int], limit: int) -> list[int]:
    """The first, the last, and as many as fit between, evenly."""
    if len(steps) <= limit:
        return list(steps)
    return [steps[round(position * (len(steps) - 1) / (limit - 1))] for position in range(limit)]


def _read(file: Path) -> Image.Image:
    """As large as the grid shows it: all of them are in memory together."""
    with Image.open(file) as image:
        return fitted(image.convert("RGB"))
