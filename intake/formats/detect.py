"""Detect the format of an archive by its contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from intake.archives.entries import Entry
from intake.archives.lookup import Lookup
from intake.errors import MetadataError
from intake.findings import printable
from intake.formats.folders import subject_folder, two_folders
from intake.formats.judgement import JudgementSource
from intake.formats.shards import SUFFIXES, read_tables, shards_in, split_of_table
from intake.formats.tables import metadata_files, read_table, several, tables_in
from intake.formats.webdataset import samples
from intake.limits import Limits
from intake.rows import REQUIRED

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def detect(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> tuple[JudgementSource, Lookup]:
    """A table called metadata first, then two folders, the only other table, a folder of images.

    ``prompt`` is for images that come without one. Raises MetadataError.
    """
    named = metadata_files(files)
    if len(named) > 1 and not of_splits(named):
        raise several(named)
    if named:
        return _tables(named, files, limits)
    folders = two_folders(files, limits, prompt)
    if folders is not None:
        return folders, Lookup(files)
    shards = shards_in(files)
    if shards:
        return _tables(shards, files, limits)
    pairs = samples(files)
    if pairs is not None:
        return pairs, Lookup(files)
    tables = tables_in(files)
    if len(tables) == 1 or (tables and of_splits(tables)):
        return _tables(tables, files, limits)
    sheets = sorted(name for name in files if name.casefold().endswith(SPREADSHEETS))
    if sheets and not tables:
        reason = f"holds a spreadsheet ({printable(sheets[0])}), which intake does not read; save it as CSV in UTF-8"
        raise MetadataError("metadata_unreadable", reason)
    images = subject_folder(files, limits, prompt)
    if images is not None:
        return images, Lookup(files)
    if tables:
        raise several(tables)
    raise MetadataError(
        "metadata_missing",
        "holds no metadata.jsonl or metadata.csv at the top or in its top folder; add one with the columns"
        f" {', '.join(REQUIRED)} and, where there is one, rejected. Images alone need captions"
        " (docs/reference/formats.md)",
    )


def of_splits(tables: Sequence[str]) -> bool:
    """Whether the tables are parts of one dataset: each is named for a split, or is in a split's folder."""
    return len(tables) > 1 and all(split_of_table(name) is not None for name in tables)


def _tables(names: list[str], files: Mapping[str, Entry], limits: Limits) -> tuple[JudgementSource, Lookup]:
    if len(names) == 1 and not names[0].casefold().endswith(SUFFIXES):
        return read_table(names[0], files[names[0]], limits, files), Lookup(files, names[0].rpartition("/")[0])
    return read_tables(names, files, limits), Lookup(files)
