"""Limits of memory: the first file of a process is read like the second, and what takes too much is refused at once.

Each reading has a process of its own: what Arrow once had it takes again without asking.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.settings import REPOSITORY
from tests.intake.build import png, tar_of

pytestmark = [pytest.mark.unit, pytest.mark.slow]

RED, BLUE = png((255, 0, 0)), png((0, 0, 255))
READ = """
import json, resource, sys
from pathlib import Path
from PIL import Image
from intake import Limits, memory, prepare_upload
upload, work, limit, parquet_memory, imported = json.loads(sys.argv[1])
if imported:
    import pyarrow  # before intake chose its memory pool
before = memory.peak()
with memory.limited(limit):
    prepared = prepare_upload(Path(upload), Path(work), Limits(parquet_memory=parquet_memory))
colours = [[Image.open(prepared.images[name]).getpixel((0, 0)) for name in (p.chosen, p.rejected)]
           for p in prepared.read_pairs()]
errors = [finding.message for finding in prepared.findings if finding.severity == "error"]
print(json.dumps([errors, colours[:3], len(colours), memory.peak() - before]))
"""


def read_first(
    upload: Path, *, limit: int = 2**32, parquet_memory: int = 2**30, pyarrow_imported: bool = False
) -> tuple[list[str], list[list[list[int]]], int, int]:
    """Errors, the first pairs' colours, the number of pairs, and how far the peak of memory grew, in bytes."""
    work = upload.parent / "work"
    work.mkdir(exist_ok=True)
    arguments = json.dumps([str(upload), str(work), limit, parquet_memory, pyarrow_imported])
    command = [sys.executable, "-c", READ, arguments]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    errors, colours, count, grown = json.loads(ran.stdout)
    return errors, colours, count, grown


def pick_a_pic(path: Path, compression: str) -> Path:
    columns = {"caption": ["a fox"], "jpg_0": [BLUE], "jpg_1": [RED], "label_0": [0.0], "label_1": [1.0]}
    pq.write_table(pa.table(columns), path, compression=compression)
    return path


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_the_first_parquet_file_of_a_process_is_read(compression: str, tmp_path: Path) -> None:
    upload = pick_a_pic(tmp_path / "upload", compression)
    assert read_first(upload)[:3] == ([], [[[255, 0, 0], [0, 0, 255]]], 1)


@pytest.mark.parametrize("pyarrow_imported", [False, True])
def test_limits_below_what_arrows_own_pools_reserve_suffice(pyarrow_imported: bool, tmp_path: Path) -> None:
    upload = pick_a_pic(tmp_path / "upload", "zstd")
    found = read_first(upload, limit=2**27, parquet_memory=2**26, pyarrow_imported=pyarrow_imported)
    assert found[:3] == ([], [[[255, 0, 0], [0, 0, 255]]], 1)


@pytest.mark.parametrize("compression", ["zstd", "gz"])
def test_the_first_compressed_tar_of_a_process_is_read_in_little_memory(compression: str, tmp_path: Path) -> None:
    row = b'{"prompt": "p", "chosen": "a.png", "rejected": "b.png"}'
    files = [("metadata.jsonl", row), ("a.png", RED), ("b.png", BLUE)]
    upload = tmp_path / "upload"
    packed = pa.Codec("zstd").compress(tar_of(files), asbytes=True) if compression == "zstd" else tar_of(files, "w:gz")
    upload.write_bytes(packed)
    assert read_first(upload, limit=2**27)[:3] == ([], [[[255, 0, 0], [0, 0, 255]]], 1)


def one_group(path: Path, *, rows: int, padding: int) -> Path:
    """As pandas and pyarrow write it by default: one row group, pages of 1,024 values whatever their size."""
    noise = random.Random(0).randbytes(padding)  # behind the picture's end, where no decoder reads
    reds, blues = ([image + noise + number.to_bytes(4, "big") for number in range(rows)] for image in (RED, BLUE))
    label = [1.0] * rows
    table = {"caption": [f"fox {number}" for number in range(rows)], "jpg_0": reds, "jpg_1": blues}
    pq.write_table(pa.table(table | {"label_0": label, "label_1": [0.0] * rows}), path)
    return path


def test_one_row_group_with_default_pages_is_read_within_the_limit(tmp_path: Path) -> None:
    """Two columns with pages of 20 MB, which Arrow unpacks and takes apart: never the file besides."""
    upload = one_group(tmp_path / "upload", rows=1100, padding=20_000)
    errors, colours, count, _ = read_first(upload, parquet_memory=100 * 2**20)
    assert (errors, colours[0], count) == ([], [[255, 0, 0], [0, 0, 255]], 1100)


def test_pages_that_are_too_large_are_refused_with_the_option_that_makes_them_smaller(tmp_path: Path) -> None:
    upload = one_group(tmp_path / "upload", rows=1100, padding=20_000)
    errors, _, count, grown = read_first(upload, parquet_memory=32 * 2**20)
    assert count == 0
    assert "row_group_size=100" in errors[0]
    assert grown < 150 * 2**20
