"""Decoding in an intake worker: what one image freed serves the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from store.settings import REPOSITORY

pytestmark = pytest.mark.unit
# Pages that were fetched anew for ten images of 4 MiB, after the first.
PROGRAM = """
import io, resource
from PIL import Image
from worker.runtime.freed_memory import keep_freed_memory

{keep}
file = io.BytesIO()
Image.new("RGB", (1024, 1024), "red").save(file, "WEBP")

def decode():
    Image.open(io.BytesIO(file.getvalue())).load()

decode()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    decode()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: str) -> int:
    program = PROGRAM.format(keep=keep)
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return int(ran.stdout)


def test_the_memory_of_one_image_serves_the_next() -> None:
    assert faults("keep_freed_memory()") < 0.1 * faults("")
