"""The result's manifest, ``output/manifest.json``: size and SHA-256 of every other file, and its sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainer.export.metadata import published, versions
from trainer.run_directory.output import MANIFEST, SPEC
from trainer.run_directory.run import Run


def result_manifest(run: Run, folder: Path, best_step: int) -> str:
    """``run`` in it changes with anything that determines the outcome; ``spec`` is spec.json's own digest."""
    base = published(run.spec).base
    files = {file.name: entry(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    manifest = {
        "run": f"sha256:{run.digest}",
        "dataset": f"sha256:{run.dataset_digest}",
        "spec": f"sha256:{files[SPEC]['sha256']}",
        "base": base.model_dump(mode="json"),
        "seed": run.spec.seed,
        "best_step": best_step,
        "versions": dict(versions()),
        "files": files,
    }
    return json.dumps(manifest, indent=2) + "\n"


def entry(file: Path) -> dict[str, str | int]:
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": sha256}
