"""WebDataset shards: what a sample's files are called after its key are the columns of a row.

``7.jpg_0.jpg``, ``7.jpg_1.jpg``, ``7.label_0.txt`` and ``7.original_prompt.txt`` are Pick-a-Pic's, as its copy in
shards is written (sayakpaul/pickapic_v2_webdataset); ``7.json`` adds its own columns. Which image is preferred is for
the table's format to say, as in any other table.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.folders.folders import Pictures, is_image
from intake.formats.folders.names import suffix
from intake.formats.judgement import Judgement, JudgementSource, row_finding
from intake.formats.layouts import LAYOUTS, layout_of
from intake.limits import MIB

# An image that is one of two: a name with a number, a letter or a side behind it. What is called chosen is read before.
_ONE_OF_TWO = re.compile(
    r"(?:jpe?g|png|webp|image|img|picture)[_-]?(?:[0-9ab]|left|right)$|^(?:left|right|first|second)$"
)
_LABELS = {"cls", "label", "label_0", "preference", "preferred", "winner", "best"}
_KINDS = {"txt", "text", "json", "cls", "cls2", "png", "jpg", "jpeg", "webp", "caption"}
_PROMPTS = ("caption", "prompt", "original_prompt", "txt", "text")
_TEXT_BYTES = 1 * MIB


def samples(pictures: Pictures) -> JudgementSource | None:
    """None where no sample has two images that are called one of two. Raises MetadataError for columns of no format."""
    parts: dict[str, dict[str, str]] = defaultdict(dict)  # by key, by column: paths
    for path in sorted(pictures.files):
        key, column = _key_and_column(path)
        parts[key].setdefault(column, path)
    images = set(pictures.paths)
    keys = [key for key, columns in parts.items() if _compares(columns, images)]
    if not keys:
        return None
    rows = {key: _fields(parts[key], pictures) for key in keys}
    layout = next((found for row in rows.values() if (found := layout_of(row.keys())) is not None), None)
    if layout is None:
        columns = ", ".join(printable(name) for name in sorted(next(iter(rows.values()))))
        known = "; ".join(", ".join(sorted(layout.columns)) for layout in LAYOUTS if len(layout.columns) > 2)
        reason = (
            f"holds samples of two images whose columns ({columns}) do not say which is preferred; known are {known}"
        )
        raise MetadataError("metadata_columns", reason)
    used = {path for key in keys for path in parts[key].values() if path not in images}

    def judgements() -> Iterator[Judgement | Finding]:
        for number, (key, row) in enumerate(rows.items(), start=1):
            missing = layout.columns - row.keys()
            if missing:
                reason = f"sample {printable(key)} has no {', '.join(sorted(missing))}; add it, or remove the sample"
                yield row_finding("the samples", number, reason)
            else:
                yield from layout.translate(number, row, "the samples")

    return JudgementSource(f"archive/{layout.name}", "the samples", judgements(), len(rows), used=used)


def _compares(columns: Mapping[str, str], images: set[str]) -> bool:
    """Whether two images of the sample are called one of two, or lie beside a label."""
    shown = [column for column, path in columns.items() if path in images]
    return sum(map(bool, map(_ONE_OF_TWO.search, shown))) > 1 or (
        len(shown) > 1 and not _LABELS.isdisjoint(columns.keys() - set(shown))
    )


def _key_and_column(path: str) -> tuple[str, str]:
    """WebDataset cuts a name at its first dot; of the column the suffix that tells its kind goes."""
    folder, slash, name = path.rpartition("/")
    key, _, rest = name.partition(".")
    column = rest.lower()
    if "." in column and suffix(column) in _KINDS:
        column = column.rpartition(".")[0]
    return f"{folder}{slash}{key}", column


def _fields(columns: Mapping[str, str], pictures: Pictures) -> dict[str, object]:
    """A row: images as paths, texts as they are, and what a .json holds besides."""
    fields: dict[str, object] = {}
    for column, path in columns.items():
        entry = pictures.files[path]
        if path in pictures.aside:
            continue
        if is_image(path, entry):
            fields[column] = path
        elif entry.size <= _TEXT_BYTES:
            try:
                text = entry.read().decode("utf-8-sig").strip()
                value = json.loads(text) if suffix(path) == "json" else text
            except (ValueError, RecursionError, IntakeError):
                continue
            fields = (value | fields) if isinstance(value, dict) else fields | {column: value}
    prompt = next((fields[name] for name in _PROMPTS if fields.get(name)), None)
    if prompt is not None:
        fields = {"prompt": prompt, "caption": prompt} | fields
    return fields
