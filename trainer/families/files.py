"""The files of a base model in diffusers' layout: found, checked, never unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import BadRun, Fault

PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")
WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]  # no pickles, no code
BLOCK = 2**20


def locate(source: str, revision: str | None, components: Sequence[str]) -> Path:
    """The base's folder: a local directory as it is, or the hub's files of ``components`` at a pinned revision."""
    if Path(source).is_dir():
        return Path(source)
    if revision is None:
        raise BadRun(
            [Fault("base.source", repr(source), "a directory with a diffusers model, or a hub id with base.revision")],
            code="base_not_found",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["model_index.json", *(f"{name}/{pattern}" for name in components for pattern in WANTED)]
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        fault = Fault("base.source", f"{source!r} at {revision!r}", f"not to be had from the hub: {error}")
        raise BadRun([fault], code="base_not_found") from error


def require_safetensors(folder: Path, components: Sequence[str]) -> None:
    """Raises BadRun if a component is missing or comes without safetensors."""
    faults = [fault for name in components if (fault := _component_fault(folder / name)) is not None]
    if faults:
        raise BadRun(faults, code="unsafe_format" if any("safetensors" in f.allowed for f in faults) else "bad_base")


def _component_fault(component: Path) -> Fault | None:
    where = f"base.source {component.name}/"
    if not (component / "config.json").is_file():
        return Fault(where, "no config.json", "every component of the model is required")
    if any(component.glob("*.safetensors")):
        return None
    pickles = sorted(file.name for pattern in PICKLES for file in component.glob(pattern))
    return Fault(where, ", ".join(pickles) or "no weights", "only safetensors are loaded, never pickles")


def variant(component: Path) -> str | None:
    """``fp16`` where a component's weights exist only under that name."""
    names = [file.name for file in component.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def content_hash(folders: Iterable[Path]) -> str:
    """SHA-256 over names and bytes of all files that loading can read."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(file for pattern in WANTED for file in folder.glob(pattern)):
            digest.update(f"{folder.name}/{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                while block := content.read(BLOCK):
                    digest.update(block)
    return digest.hexdigest()
