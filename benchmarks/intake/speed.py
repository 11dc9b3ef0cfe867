"""Images a second: a bare Pillow loop and intake, in turns."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.intake.material import OPTIONS, encoded, photograph, write_pairs
from intake import prepare_upload

FORMATS = tuple(OPTIONS)
IMAGES, TURNS = 60, 11

Seconds = tuple[float, float]  # of the processor, by the clock


@dataclass(frozen=True)
class Speed:
    """Images a second by processor time, medians; the ratio of every turn, by processor time and by the clock."""

    format: str
    bare: float
    intake: float
    ratios: tuple[float, ...]
    by_clock: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def compare(format_: str, folder: Path) -> Speed:
    archive = folder / f"{format_}.zip"
    write_pairs(archive, (encoded(photograph(number), format_) for number in range(IMAGES)), suffix=format_.lower())
    _decode(archive)  # what the first time loads counts for neither
    _prepare(archive, folder)
    turns = [_turn(archive, folder, bare_first=number % 2 == 0) for number in range(TURNS)]
    return Speed(
        format_,
        bare=IMAGES / statistics.median(bare[0] for bare, _ in turns),
        intake=IMAGES / statistics.median(ours[0] for _, ours in turns),
        ratios=tuple(bare[0] / ours[0] for bare, ours in turns),
        by_clock=tuple(bare[1] / ours[1] for bare, ours in turns),
    )


def _turn(archive: Path, folder: Path, *, bare_first: bool) -> tuple[Seconds, Seconds]:
    if bare_first:
        bare = _decode(archive)
        return bare, _prepare(archive, folder)
    ours = _prepare(archive, folder)
    return _decode(archive), ours


def _decode(archive: Path) -> Seconds:
    """What every reader has to do: take the bytes out of the archive and decode them."""

    def decode() -> None:
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                if name.startswith("images/"):
                    with Image.open(io.BytesIO(files.read(name))) as image:
                        image.load()

    return _timed(decode)


def _prepare(archive: Path, folder: Path) -> Seconds:
    """The images that it writes are moved into the store afterwards, so that removing them is none of it."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        took = _timed(lambda: prepare_upload(archive, Path(work)))
        assert len(list((Path(work) / "images").iterdir())) == IMAGES
    return took


def _timed(work: Callable[[], object]) -> Seconds:
    processor, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - clock
