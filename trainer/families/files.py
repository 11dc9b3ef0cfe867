"""Find and check the files of a base model in diffusers' layout; no pickle is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.runtime.errors import BadRun, BaseUnavailable, RunFieldError

PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")
WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]  # no pickles, no code
SHA256 = re.compile("[0-9a-f]{64}")


def locate(source: str, revision: str | None, components: Sequence[str]) -> Path:
    """The base's folder: a local directory as it is, or the hub's files of ``components`` at a pinned revision.

    Raises BadRun for one that is not there or not for us, BaseUnavailable when the hub does not answer or send it.
    """
    if Path(source).is_dir():
        return Path(source)
    if revision is None:
        raise _not_found(repr(source), "a directory with a diffusers model, or a hub id with base.revision")
    from huggingface_hub import snapshot_download

    # HTTPError is of whichever HTTP client the hub's library uses, and covers broken connections too.
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    wanted = ["model_index.json", *(f"{name}/{pattern}" for name in components for pattern in WANTED)]
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))
    except (HFValidationError, HTTPError, LocalEntryNotFoundError) as error:
        if isinstance(error, HFValidationError) or _is_refusal(error) or _is_refusal(error.__cause__):
            raise _not_found(f"{source!r} at {revision!r}", f"not to be had from the hub: {error}") from error
        raise BaseUnavailable(source, str(error)) from error


def _not_found(given: str, allowed: str) -> BadRun:
    return BadRun([RunFieldError("base.source", given, allowed)], code="base_not_found")


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the hub answered, and will answer the same again; a rate limit is not that."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is not None and 400 <= status < 500 and status not in (408, 429)


def require_safetensors(folder: Path, components: Sequence[str]) -> None:
    """Raises BadRun if a component is missing or comes without safetensors."""
    field_errors = [error for name in components if (error := _component_error(folder / name)) is not None]
    if field_errors:
        raise BadRun(
            field_errors, code="unsafe_format" if any("safetensors" in f.allowed for f in field_errors) else "bad_base"
        )


def _component_error(component: Path) -> RunFieldError | None:
    where = f"base.source {component.name}/"
    if not (component / "config.json").is_file():
        return RunFieldError(where, "no config.json", "every component of the model is required")
    if any(component.glob("*.safetensors")):
        return None
    pickles = sorted(file.name for pattern in PICKLES for file in component.glob(pattern))
    return RunFieldError(where, ", ".join(pickles) or "no weights", "only safetensors are loaded, never pickles")


def variant(component: Path) -> str | None:
    """``fp16`` where a component's weights exist only under that name."""
    names = [file.name for file in component.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def read_json(path: Path) -> dict[str, Any]:
    """A component's configuration. Raises BadRun if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        where = f"base.source {path.parent.name}/{path.name}"
        raise BadRun(
            [RunFieldError(where, str(error), "a diffusers model has this file, in JSON")], code="bad_base"
        ) from error
    return content


def content_hash(folders: Iterable[Path]) -> str:
    """SHA-256 over names and contents of all files that loading can read."""
    files = [file for folder in folders for file in sorted(f for pattern in WANTED for f in folder.glob(pattern))]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as threads:  # hashing lets other threads run
        for file, content in zip(files, threads.map(_sha256, files), strict=True):
            digest.update(f"{file.parent.name}/{file.name}\0{content}\0".encode())
    return digest.hexdigest()


def _sha256(file: Path) -> str:
    """Of a large file from the hub this is its name in the hub's cache, to which the snapshot's links point."""
    target = file.resolve()
    if file.is_symlink() and target.parent.name == "blobs" and SHA256.fullmatch(target.name):
        return target.name
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
