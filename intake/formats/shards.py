"""Several tables that are read as one: the shards of a dataset, whole repositories, and a table for each split.

The hub serves a dataset as ``data/train-00000-of-00003.parquet``, ``save_to_disk`` writes
``train/data-00000-of-00001.arrow``, and ImageFolder has a ``metadata.jsonl`` in the folder of each split. One shard is
in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.judgement import Judgement, JudgementSource
from intake.formats.parquet import read_arrow_entry
from intake.formats.tables import READERS, read_table
from intake.limits import GIB, Limits
from intake.pairs import Split
from intake.values import split_of

SUFFIXES = (".parquet", ".arrow")
_SHARD_BYTES = GIB  # of one shard, which is in memory as a whole; the hub's are at most half of that
# What `datasets` writes beside the tables that it saves: copies of rows that it computed, and orders of rows.
_DERIVED = re.compile(r"(^|/)(cache-[^/]*|indices|[^/]*-indices)\.arrow$")
_SHARD = re.compile(r"[-_.]?\d+(-?of-?\d+)?(-[0-9a-f]{8,})?$")  # "-00000-of-00003" behind the split's name


def shards_in(files: Mapping[str, Entry]) -> list[str]:
    """The parquet and Arrow files of an archive, in the order in which a dataset has them."""
    return sorted(name for name in files if name.casefold().endswith(SUFFIXES) and not _DERIVED.search(name))


def split_of_table(name: str) -> Split | None:
    """The split that the table's name or one of its folders says."""
    *folders, last = name.split("/")
    stem = _SHARD.sub("", last.rpartition(".")[0])
    for part in (stem, *reversed(folders)):
        found = split_of(part) or split_of(re.split(r"[-_.]", part)[0])
        if found is not None:
            return found
    return None


def read_tables(names: Sequence[str], files: Mapping[str, Entry], limits: Limits) -> JudgementSource:
    """Rows count through all of them, in order. A table that is named as held out makes its pairs held out, if there is
    another one that is not."""
    splits = {name: split_of_table(name) for name in names}
    held_out = {name for name, split in splits.items() if split == "validation"}
    held_out = held_out if len(held_out) < len(names) else set()
    try:
        first = _source(names[0], files, limits)
    except IntakeError as error:
        shown = printable(names[0])
        return JudgementSource(
            "archive", shown, iter([Finding(error.code, "error", f"{shown} {error.reason}.", shown)])
        )
    if len(names) == 1:
        return replace(first, judgements=_within(first, names[0], 0, None))
    opened: list[Callable[[], JudgementSource]] = [lambda: first]
    opened += [lambda name=name: _source(name, files, limits) for name in names[1:]]  # type: ignore[misc]
    folders = sorted({name.rpartition("/")[0] for name in names})
    where = f" in {printable(folders[0])}" if len(folders) == 1 and folders[0] else ""
    shown = f"the {len(names)} tables{where}"
    judgements = _all(list(zip(names, opened, strict=True)), held_out)
    return JudgementSource(f"archive/{first.format.partition('/')[2]}", shown, judgements)


def _source(name: str, files: Mapping[str, Entry], limits: Limits) -> JudgementSource:
    if name.rpartition(".")[2].casefold() in READERS:
        return read_table(name, files[name], limits, files)
    if files[name].size > _SHARD_BYTES:
        reason = f"is larger than {_SHARD_BYTES:,} bytes; upload it by itself, and join the files to a dataset"
        raise MetadataError("archive_limits", reason)
    return read_arrow_entry(name, files[name], limits)


def _all(
    opened: Sequence[tuple[str, Callable[[], JudgementSource]]], held_out: set[str]
) -> Iterator[Judgement | Finding]:
    before = 0
    for name, source_of in opened:
        last = 0
        try:
            source = source_of()
        except IntakeError as error:
            shown = printable(name)
            yield Finding(error.code, "error", f"{shown} {error.reason}.", shown)
            continue
        for item in _within(source, name, before, "validation" if name in held_out else None):
            last = max(last, item.row or 0)
            yield item
        before += last


def _within(source: JudgementSource, name: str, before: int, split: Split | None) -> Iterator[Judgement | Finding]:
    """The judgements of one table among several: paths start in its folder, too."""
    folder = name.rpartition("/")[0]
    for item in source.judgements:
        if isinstance(item, Finding):
            yield item
            continue
        fields = item.fields if split is None or item.fields.get("split") else {**item.fields, "split": split}
        start = f"{folder}/" if folder else item.folder
        yield replace(item, number=before + item.number, row=item.number, file=source.file, folder=start, fields=fields)
