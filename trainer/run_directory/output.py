"""Names and hashes of the files in ``output/``, and whether this run has written them. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from trainer.run_directory.run import Run
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.events import Done

ADAPTER, EMBEDDING = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"
METRICS, SPEC, CARD, SAMPLES, MANIFEST = "metrics.jsonl", "spec.json", "README.md", "samples.png", "manifest.json"


@dataclass(frozen=True)
class SampleImages:
    """``samples.png``, the base's images in the first row; or why there is none, as a clause."""

    png: bytes | None
    missing_reason: str = ""


def finished_result(run: Run) -> Done | None:
    """What an earlier call left in ``output/``. Raises BadRun if that was another run."""
    output = run.directory / "output"
    if not output.exists():
        return None
    metadata = adapter_metadata(output / ADAPTER)
    if metadata["pairtune.run"] != run.digest:
        allowed = "spec and data must stay as they were; use another directory, or remove output/"
        raise BadRun([RunFieldError("output/", "made by another spec or from other data", allowed)])
    return Done(best_step=int(metadata["pairtune.best_step"]), files=file_hashes(output))


def adapter_metadata(adapter: Path) -> dict[str, str]:
    """The header of a safetensors file: 8 bytes of length, little-endian, then JSON."""
    with adapter.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        metadata: dict[str, str] = json.loads(file.read(length))["__metadata__"]
    return metadata


def file_hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
