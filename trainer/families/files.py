"""Find and check the files of a base model in diffusers' layout; no pickle is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.runtime.errors import BadRun, RunFieldError

PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")
WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]  # no pickles, no code
HALF = "fp16"  # the variant in half precision, by diffusers' usage
# diffusion_pytorch_model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, model-00001-of-00002.fp16.safetensors
WEIGHTS_NAME = re.compile(
    r"[A-Za-z_]+(?:\.(?P<variant>\w+))?(?:-\d{5}-of-(?P<total>\d{5}))?(?:\.(?P<after>\w+))?\.safetensors"
)
INDEX = re.compile(r"\.safetensors\.index(?:\.(?P<variant>\w+))?\.json$")
SHA256 = re.compile("[0-9a-f]{64}")


def chosen_files(names: Iterable[str], *, half: bool) -> list[str]:
    """Of a component's files those that are loaded: configuration, and one set of weights.

    In fp16 if ``half``, and otherwise in full precision, where there is a choice. Weights by other names (``non_ema``)
    are never loaded.
    """
    given = list(names)
    weights, chosen = _weights(given, half=half)
    return [
        name
        for name in given
        if name in weights
        or not (name.endswith(".safetensors") or ((index := INDEX.search(name)) and index["variant"] != chosen))
    ]


def _weights(names: Iterable[str], *, half: bool) -> tuple[list[str], str | None]:
    """The chosen weights and their variant; none where no set is complete."""
    parsed = {name: found for name in names if (found := WEIGHTS_NAME.fullmatch(name))}
    for wanted in (HALF, None) if half else (None, HALF):
        files = {name: found for name, found in parsed.items() if (found["variant"] or found["after"]) == wanted}
        shards = Counter(found["total"] for found in files.values())
        if files and all(total is None or count % int(total) == 0 for total, count in shards.items()):
            return list(files), wanted
    return [], None


def incomplete_weights(component: Path, *, half: bool) -> bool:
    """Whether a component of a model has no complete set of weights."""
    names = [file.name for file in component.glob("*")]
    return "config.json" in names and not _weights(names, half=half)[0]


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


def variant(component: Path, *, half: bool) -> str | None:
    """``fp16`` where those weights are loaded: if ``half``, or if there are no others."""
    return _weights([file.name for file in component.glob("*.safetensors")], half=half)[1]


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


def content_hash(folders: Iterable[Path], *, half: bool) -> str:
    """SHA-256 over names and contents of all files that are loaded."""
    files = [
        folder / name
        for folder in folders
        for name in chosen_files(sorted(f.name for pattern in WANTED for f in folder.glob(pattern)), half=half)
    ]
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
