"""Seconds of each phase of reading 20,000 pairs, as an intake worker does it: fetch, read, store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.intake.material import encoded, write_pairs
from intake import memory, prepare_upload
from store.blobs.blobs import Blobs
from worker.intake.file_intake import store_images

PAIRS = 20_000
SIDE = 256
ROWS_A_GROUP = 100  # as ``datasets`` writes them
KINDS = ("zip", "parquet")


@dataclass(frozen=True)
class Phases:
    """``fetch``, ``read`` and ``store`` are seconds by the clock; memory is the peak above the process's start."""

    kind: str
    pairs: int
    mib: float
    fetch: float
    read: float
    store: float
    grown_mib: float


def measure(kind: str, pairs: int, folder: Path) -> Phases:
    """``folder`` is on the disk that is measured; in a process of its own, so that the memory is this reading's."""
    upload = folder / "upload"
    if kind == "zip":
        write_pairs(upload, _photographs(2 * pairs), suffix="jpg")
    else:
        _write_parquet(upload, pairs)
    blobs = Blobs(f"file://{folder}/blobs")
    mib, blob = upload.stat().st_size / 2**20, blobs.put_file(upload)
    before = memory.peak()
    times = [time.perf_counter()]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        blobs.fetch(blob.sha256, Path(work) / "fetched")
        times.append(time.perf_counter())
        prepared = prepare_upload(Path(work) / "fetched", Path(work))
        assert prepared.count == pairs
        times.append(time.perf_counter())
        store_images(blobs, prepared.images, lambda _: None)
        times.append(time.perf_counter())
    fetch, read, store = (end - start for start, end in pairwise(times))
    return Phases(kind, pairs, mib, fetch, read, store, (memory.peak() - before) / 2**20)


def _photographs(count: int) -> Iterator[bytes]:
    grain = Image.effect_noise((SIDE, SIDE), 40).convert("RGB")
    for number in range(count):
        image = grain.copy()
        image.paste((number % 256, number // 256 % 256, number * 7 % 256), (64, 64, 192, 192))
        yield encoded(image, "JPEG")


def _write_parquet(path: Path, pairs: int) -> None:
    """Pick-a-Pic's columns."""
    label, image = pa.float64(), pa.binary()
    schema = pa.schema({"caption": pa.string(), "jpg_0": image, "jpg_1": image, "label_0": label, "label_1": label})
    images = _photographs(2 * pairs)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, pairs, ROWS_A_GROUP):
            group = range(start, min(pairs, start + ROWS_A_GROUP))
            columns = {
                "caption": [f"picture {number}" for number in group],
                "jpg_0": [next(images) for _ in group],
                "jpg_1": [next(images) for _ in group],
                "label_0": [float(number % 2) for number in group],
                "label_1": [float(1 - number % 2) for number in group],
            }
            writer.write_table(pa.table(columns, schema))
