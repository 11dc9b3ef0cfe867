"""WebDataset shards: what a sample's files are called after its key are the columns of a row.

``7.jpg_0.jpg``, ``7.jpg_1.jpg``, ``7.label_0.txt`` and ``7.original_prompt.txt`` are Pick-a-Pic's, as its copy in
shards is written (sayakpaul/pickapic_v2_webdataset); ``7.json`` adds its own columns. Which image is preferred is for
the table's format to say, as in any other table. Samples with one image are pictures with captions.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, counted, printable
from intake.formats.columns import PREFERENCES, PROMPTS, by_plain, image_pair
from intake.formats.comparisons import SIDES, argilla_record
from intake.formats.folders.folders import SUFFIXES, Pictures, is_image
from intake.formats.judgement import Judgement, JudgementSource, Names, row_finding
from intake.formats.layouts import Match, layout_of, no_layout
from intake.formats.own import OWN
from intake.formats.tables.tables import by_layout
from intake.limits import MIB
from trainer.spec.same import same_prompt

FILE = "the samples"
_LABELS = {"cls", "label", "label_0", "preference", "preferred", "winner", "best"}
_KINDS = {"txt", "text", "json", "cls", "cls2", "caption", *SUFFIXES}
_TEXT_BYTES = 1 * MIB

Sample = Mapping[str, str]  # paths by column


def samples(pictures: Pictures) -> JudgementSource | None:
    """None where no sample has two images that are called one of two. Raises MetadataError for columns of no format."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(pictures.files):
        key, column = _key_and_column(path)
        found[key].setdefault(column, path)
    images = set(pictures.paths)
    paired = [key for key, sample in found.items() if _two_of(sample, images)]
    if not paired:
        return None
    rows = (_row(found[key], pictures) for key in paired)
    columns = _row(found[paired[0]], pictures)
    match = next((match for row in rows if (match := layout_of(row.keys())) is not None), None)
    sides = {name for column, name in match.names.items() if column in match.layout.images} if match else set()
    if match is None and image_pair([one for one in columns if columns[one] in images], PREFERENCES) is not None:
        return None  # the names say the sides, and captions may stand elsewhere
    if match is None or len(sides) < 2:
        error = no_layout(columns)
        raise MetadataError(error.code, f"holds samples of two images that make no pairs: it {error.reason}")
    keys = [key for key, sample in found.items() if any(sample.get(side) in images for side in sides)]
    used = {path for key in keys for path in found[key].values() if path not in images}
    judgements = _judgements({key: found[key] for key in keys}, match, pictures)
    kind = "webdataset" if match.layout is OWN else match.layout.name
    return JudgementSource(f"archive/{kind}", FILE, judgements, len(keys), used=used)


def _two_of(sample: Sample, images: set[str]) -> bool:
    """Whether two images of the sample are called one of two, or lie beside a label."""
    columns = [column for column, path in sample.items() if path in images]
    if len(columns) < 2:
        return False
    return image_pair(columns, (*PREFERENCES, *SIDES)) is not None or not _LABELS.isdisjoint(
        sample.keys() - set(columns)
    )


def _key_and_column(path: str) -> tuple[str, str]:
    """WebDataset cuts a name at its first dot; of the column the suffix that tells its kind goes."""
    folder, slash, name = path.rpartition("/")
    key, _, rest = name.partition(".")
    column, dot, kind = rest.lower().rpartition(".")
    return f"{folder}{slash}{key}", column if dot and kind in _KINDS else rest.lower()


def _row(sample: Sample, pictures: Pictures) -> dict[str, object]:
    """Images as paths, texts as they are, and what a .json holds besides."""
    row: dict[str, object] = {}
    for column, path in sample.items():
        entry = pictures.files[path]
        if path in pictures.aside:
            continue
        if is_image(path, entry):
            row[column] = path
        elif entry.size <= _TEXT_BYTES:
            try:
                text = entry.read().decode("utf-8-sig").strip()
                value = json.loads(text) if path.casefold().endswith(".json") else text
            except (ValueError, RecursionError, IntakeError):
                continue
            row = (value | row) if isinstance(value, dict) else row | {column: value}
    own = by_plain(row)
    prompt = next((row[own[name]] for name in (*PROMPTS, "txt") if name in own and row[own[name]]), None)
    if prompt is not None:
        row = {"prompt": prompt, "caption": prompt} | row
    return dict(argilla_record(row))


def _judgements(found: Mapping[str, Sample], match: Match, pictures: Pictures) -> Iterator[Judgement | Finding]:
    differing, first = 0, ""
    for number, (key, sample) in enumerate(found.items(), start=1):
        row = _row(sample, pictures)
        if _prompts_differ(row):
            differing, first = differing + 1, first or key
        missing = _missing(row, match)
        if missing:
            reason = f"sample {printable(key)} has no {', '.join(missing)}; add it, or remove the sample"
            yield row_finding(FILE, number, reason)
        else:
            yield from match.layout.translate(number, by_layout(row, match.names), FILE, match.names)
    if differing:
        taken = match.names.get("prompt") or match.names.get("caption", "prompt")
        text = (
            f"{FILE}: {counted(differing, 'sample')} with two prompts that disagree (the first is {printable(first)}: "
            f"{taken} was taken); remove the one that is wrong."
        )
        yield Finding("caption_conflict", "warning", text, FILE)


def _prompts_differ(row: Mapping[str, object]) -> bool:
    own = by_plain(row)
    prompts = [row[own[name]] for name in (*PROMPTS, "txt") if name in own]
    return len({same_prompt(one) for one in prompts if isinstance(one, str) and one.strip()}) > 1


def _missing(row: Mapping[str, object], match: Match) -> list[str]:
    """The columns that other samples have and this one needs."""
    needed: Names = match.names
    free = match.layout.more - match.layout.images
    return sorted(name for column, name in needed.items() if name not in row and column not in free)
