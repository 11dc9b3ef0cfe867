"""Read and check a run directory as a whole, before anything heavy is imported.

``spec.json``, ``data/manifest.jsonl`` and the images it names. Whatever is wrong with any of them is collected and
raised at once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from trainer.run_directory.images import upright_size
from trainer.run_directory.split import HeldOutBy, hold_out
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.invalid_fields import invalid_fields
from trainer.spec.manifest import ManifestPair
from trainer.spec.resolved import Resolved, resolve
from trainer.spec.run import RunSpec
from trainer.spec.sample_spec import SampleSpec

Spec = TypeVar("Spec", RunSpec, SampleSpec)


@dataclass(frozen=True)
class ImageFile:
    """``size`` is width, height in pixels, upright."""

    path: Path
    sha256: str
    size: tuple[int, int]


@dataclass(frozen=True)
class PairFiles:
    """``rejected`` is None where the base is to sample it; ``weight`` and ``seed`` are as in the manifest."""

    id: str
    prompt: str
    chosen: ImageFile
    rejected: ImageFile | None
    weight: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Run:
    """``digest`` changes with anything in the request; ``dataset_digest`` with the data alone.

    Not with defaults: a later version that has one field more, or one fewer, goes on with a run of this one.
    """

    directory: Path
    spec: RunSpec
    hyperparameters: Resolved
    training: tuple[PairFiles, ...]
    validation: tuple[PairFiles, ...]
    held_out_by: HeldOutBy
    dataset_digest: str
    digest: str


def read_run(directory: Path) -> Run:
    """Raises BadRun with every error found."""
    field_errors: list[RunFieldError] = []
    spec = _read_spec(directory / "spec.json", RunSpec, field_errors)
    pairs = _read_pairs(directory / "data", field_errors)
    if spec is None or field_errors:
        raise BadRun(field_errors)
    training, validation, how = hold_out(
        [(files, pair.split) for pair, files in pairs],
        prompt=lambda files: files.prompt,
        images=_digests,
        share=spec.validation.share,
        limit=spec.validation.max_pairs,
    )
    dataset_digest = _digest([_identity(pair, files) for pair, files in pairs])
    return Run(
        directory=directory,
        spec=spec,
        hyperparameters=resolve(spec.method, len(training)),
        training=tuple(training),
        validation=tuple(validation),
        held_out_by=how,
        dataset_digest=dataset_digest,
        digest=_digest([spec.model_dump(mode="json", exclude_unset=True), dataset_digest]),
    )


def read_sample_spec(directory: Path) -> SampleSpec:
    """What ``python -m trainer sample`` is to sample. Raises BadRun with every error found."""
    field_errors: list[RunFieldError] = []
    spec = _read_spec(directory / "draw.json", SampleSpec, field_errors)
    if spec is None:
        raise BadRun(field_errors)
    return spec


def _read_spec(path: Path, model: type[Spec], field_errors: list[RunFieldError]) -> Spec | None:
    try:
        given = from_json(path.read_bytes())
        return model.model_validate(given)
    except OSError as error:
        field_errors.append(RunFieldError(path.name, error.strerror or "unreadable", "the specification is required"))
    except ValidationError as error:
        field_errors.extend(model_field_errors(error, given, model))
    except ValueError as error:
        field_errors.append(RunFieldError(path.name, "no JSON", str(error)))
    return None


def _read_pairs(data: Path, field_errors: list[RunFieldError]) -> list[tuple[ManifestPair, PairFiles]]:
    manifest = data / "manifest.jsonl"
    try:
        lines = manifest.read_bytes().split(b"\n")  # as text, splitlines() would split inside prompts too
    except OSError as error:
        field_errors.append(RunFieldError("data/manifest.jsonl", str(error), "one JSON object per pair is required"))
        return []
    parsed = [
        pair
        for number, line in enumerate(lines, start=1)
        if line.strip() and (pair := _read_line(line, f"data/manifest.jsonl:{number}", field_errors)) is not None
    ]
    field_errors.extend(
        RunFieldError("data/manifest.jsonl", f"id {identifier!r} {count} times", "ids are unique")
        for identifier, count in Counter(pair.id for pair in parsed).items()
        if count > 1
    )
    if not any(pair.split == "train" for pair in parsed):
        field_errors.append(
            RunFieldError("data/manifest.jsonl", f"{len(parsed)} pairs", "at least one with split 'train' is needed")
        )
    return [(pair, files) for pair in parsed if (files := _read_images(pair, data, field_errors)) is not None]


def _read_line(line: bytes, where: str, field_errors: list[RunFieldError]) -> ManifestPair | None:
    try:
        given = from_json(line)
        return ManifestPair.model_validate(given)
    except ValidationError as error:
        field_errors.extend(model_field_errors(error, given, ManifestPair, prefix=f"{where} "))
    except ValueError as error:
        field_errors.append(RunFieldError(where, "no JSON", str(error)))
    return None


def _read_images(pair: ManifestPair, data: Path, field_errors: list[RunFieldError]) -> PairFiles | None:
    chosen = _read_image(data, pair.chosen, f"pair {pair.id} chosen", field_errors)
    rejected = _read_image(data, pair.rejected, f"pair {pair.id} rejected", field_errors) if pair.rejected else None
    if chosen is None or (rejected is None and pair.rejected):
        return None
    return PairFiles(pair.id, pair.prompt, chosen, rejected, pair.weight, pair.seed)


def image_file(path: Path) -> ImageFile:
    """Raises OSError, or UnreadableImage."""
    content = path.read_bytes()
    return ImageFile(path, hashlib.sha256(content).hexdigest(), upright_size(content))


def _read_image(data: Path, name: str, where: str, field_errors: list[RunFieldError]) -> ImageFile | None:
    path = data / name
    try:
        if not path.resolve().is_relative_to(data.resolve()):
            field_errors.append(RunFieldError(where, repr(name), "paths lead into data/"))
            return None
        return image_file(path)
    except OSError as error:
        field_errors.append(RunFieldError(where, repr(name), error.strerror or "unreadable"))
    except ValueError as error:  # UnreadableImage, or a path that holds a NUL
        field_errors.append(RunFieldError(where, repr(name), str(error)))
    return None


def model_field_errors(
    error: ValidationError, given: object, model: type[BaseModel], prefix: str = ""
) -> list[RunFieldError]:
    return [
        RunFieldError(
            prefix + (invalid.path or "the object"),
            "nothing" if invalid.kind == "missing" else repr(invalid.given)[:200],
            f"unknown field; {invalid.wanted}" if invalid.kind == "unknown" else invalid.wanted,
        )
        for invalid in invalid_fields(error, given, model)
    ]


def _identity(pair: ManifestPair, files: PairFiles) -> list[str | float | None]:
    """What changes the run: a weight of 1 is none, as in runs of versions without weights; no method uses the seed."""
    rejected = files.rejected.sha256 if files.rejected else None
    weight = [] if pair.weight == 1 else [pair.weight]
    return [pair.id, pair.prompt, files.chosen.sha256, rejected, pair.split, *weight]


def _digests(files: PairFiles) -> list[str]:
    return [image.sha256 for image in (files.chosen, files.rejected) if image is not None]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
