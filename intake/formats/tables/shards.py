"""Several tables that are read as one: the shards of a dataset, whole repositories, and a table for each split.

The hub serves a dataset as ``data/train-00000-of-00003.parquet``, ``save_to_disk`` writes
``train/data-00000-of-00001.arrow``, and ImageFolder has a ``metadata.jsonl`` in the folder of each split. One shard is
in memory at a time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.judgement import Judgement, JudgementSource
from intake.formats.tables.parquet import read_arrow_entry
from intake.formats.tables.tables import read_table
from intake.formats.tables.text import READERS
from intake.limits import GIB, Limits
from intake.pairs import Split
from intake.values import is_nothing, split_of

SUFFIXES = (".parquet", ".arrow")
_SHARD_BYTES = GIB  # of one shard, which is in memory as a whole; the hub's are at most half of that
# What `datasets` writes beside the tables that it saves: copies of rows that it computed, and orders of rows.
_DERIVED = re.compile(r"(^|/)(cache-[^/]*|indices|[^/]*-indices)\.arrow$")
_SHARD = re.compile(r"[-_.]?\d+(-?of-?\d+)?(-[0-9a-f]{8,})?$")  # "-00000-of-00003" behind the split's name


def shards_in(files: Mapping[str, Entry]) -> list[str]:
    """The parquet and Arrow files of an archive, in the order in which a dataset has them."""
    return sorted(name for name in files if name.casefold().endswith(SUFFIXES) and not _DERIVED.search(name))


def split_of_table(name: str) -> Split | None:
    """The split that the table's name says, or the innermost folder that says one."""
    *folders, last = name.split("/")
    words = re.findall(r"[^\W_]+", _SHARD.sub("", last.rpartition(".")[0]))
    return next((found for word in (*reversed(words), *reversed(folders)) if (found := split_of(word))), None)


def read_tables(names: Sequence[str], files: Mapping[str, Entry], limits: Limits) -> JudgementSource:
    """All of them, in order. If they are named for several splits, their rows belong to those."""
    splits = {name: split_of_table(name) for name in names}
    one_split = len(set(splits.values())) == 1
    first, others = _opened(names[0], files, limits), names[1:]
    folders = {name.rpartition("/")[0] for name in names}
    where = f" in {printable(min(folders))}" if len(folders) == 1 and "" not in folders else ""
    shown = f"the {len(names)} tables{where}" if others else first.file
    sources = itertools.chain([first], (_opened(name, files, limits) for name in others))
    judgements = itertools.chain.from_iterable(
        _of_split(source, name, None if one_split else splits[name])
        for name, source in zip(names, sources, strict=True)
    )
    return JudgementSource(first.format, shown, judgements, None if others else first.total, used=set(names))


def _opened(name: str, files: Mapping[str, Entry], limits: Limits) -> JudgementSource:
    """What is wrong with the table as a whole is a finding among its judgements."""
    try:
        return _source(name, files, limits)
    except IntakeError as error:
        shown = printable(name)
        finding = Finding(error.code, "error", f"{shown} {error.reason}.", shown)
        return JudgementSource("archive", shown, iter([finding]))


def _source(name: str, files: Mapping[str, Entry], limits: Limits) -> JudgementSource:
    if name.rpartition(".")[2].casefold() in READERS:
        return read_table(name, files[name], limits, files)
    if files[name].size > _SHARD_BYTES:
        reason = f"is larger than {_SHARD_BYTES:,} bytes; upload it by itself, and join the files to a dataset"
        raise MetadataError("archive_limits", reason)
    return read_arrow_entry(name, files[name], limits)


def _of_split(source: JudgementSource, name: str, split: Split | None) -> Iterator[Judgement | Finding]:
    """The table's judgements, of its split where their row names none; paths start in the table's folder, too."""
    folder = name.rpartition("/")[0]
    start = f"{folder}/" if folder else ""
    for item in source.judgements:
        if isinstance(item, Judgement):
            fields = {**item.fields, "split": split if is_nothing(item.fields.get("split")) else item.fields["split"]}
            item = replace(item, fields=fields, file=source.file, folder=item.folder or start)
        yield item
