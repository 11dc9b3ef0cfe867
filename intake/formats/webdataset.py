"""WebDataset samples of pairs: the files that share a name up to its first dot are one row.

``0001.jpg_0.jpg``, ``0001.jpg_1.jpg``, ``0001.label_0.txt`` and ``0001.original_prompt.txt`` are the columns ``jpg_0``,
``jpg_1``, ``label_0`` and ``original_prompt``; the members of ``0001.json`` are columns, too. Samples with one image
are a folder of captioned images (``intake.formats.folders``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding
from intake.formats.columns import PREFERENCES, image_pair, words
from intake.formats.comparisons import SIDES, argilla_record
from intake.formats.judgement import Judgement, JudgementSource, row_finding
from intake.formats.layouts import Match, layout_of, no_layout
from intake.formats.tables import by_layout

FILE = "the samples"
_TEXT_BYTES = 2**20
_IMAGE_ENDINGS = {"png", "jpg", "jpeg", "webp", "jfif", "gif", "bmp", "tif", "tiff", "avif", "img", "image"}
_TEXT_ENDINGS = {"txt", "text", "json", "cls", "caption", "prompt"}

Sample = Mapping[str, Entry]  # files of one key by what follows its first dot


def samples(files: Mapping[str, Entry]) -> JudgementSource | None:
    """None where no sample has two images. Raises MetadataError where it is open which of the two is preferred."""
    found: dict[str, dict[str, Entry]] = {}
    for name in sorted(files):
        folder, _, last = name.rpartition("/")
        key, dot, part = last.partition(".")
        if dot and key:
            found.setdefault(f"{folder}/{key}", {})[part.casefold()] = files[name]
    paired = [sample for sample in found.values() if _images(sample) is not None]
    if not paired:
        return None
    columns = _columns(paired[0])
    match = layout_of(columns)
    if match is None or len({match.names.get(one) for one in match.layout.images} - {None}) < 2:
        error = no_layout(columns)
        raise MetadataError(
            error.code, f"holds samples of two images whose columns do not make pairs: it {error.reason}"
        )
    return JudgementSource("archive/webdataset", FILE, _judgements(found, match), len(found))


def _images(sample: Sample) -> tuple[str, str] | None:
    columns = [_column(part) for part in sample if _is_image(part)]
    return image_pair(columns, (*PREFERENCES, *SIDES)) if len(columns) > 1 else None


def _is_image(part: str) -> bool:
    """``chosen.png`` and ``jpg_0``; not ``jpg_0.txt``."""
    ending = part.rpartition(".")[2]
    return ending in _IMAGE_ENDINGS or (ending not in _TEXT_ENDINGS and bool(_IMAGE_ENDINGS & set(words(ending))))


def _column(part: str) -> str:
    column, dot, ending = part.rpartition(".")
    return column if dot and ending in _IMAGE_ENDINGS | _TEXT_ENDINGS else {"txt": "text"}.get(part, part)


def _columns(sample: Sample) -> dict[str, object]:
    """The sample as a row: paths of its images, and what its texts say. Raises IntakeError."""
    row: dict[str, object] = {}
    for part, entry in sample.items():
        if _is_image(part):
            row[_column(part)] = entry.name
        elif entry.size <= _TEXT_BYTES:
            text = entry.read().decode("utf-8-sig", "replace").strip()
            if part.rpartition(".")[2] != "json":
                row[_column(part)] = text
                continue
            try:
                members = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise MetadataError("row_invalid", f"{part} is not JSON; correct it") from error
            row = (members if isinstance(members, dict) else {_column(part): members}) | row
    return dict(argilla_record(row))


def _judgements(found: Mapping[str, Sample], match: Match) -> Iterator[Judgement | Finding]:
    for number, (key, sample) in enumerate(found.items(), start=1):
        try:
            row = _columns(sample)
        except IntakeError as error:
            yield row_finding(FILE, number, f"{key.strip('/')}: {error.reason}", error.code)
            continue
        names = match.layout.names(row) or match.names
        yield from match.layout.translate(number, by_layout(row, names), FILE, names)
