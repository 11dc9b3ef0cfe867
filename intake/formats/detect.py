"""Detect the format of an archive by its contents."""

from __future__ import annotations

from collections.abc import Mapping

from intake.archives.entries import Entry
from intake.archives.lookup import Lookup
from intake.errors import MetadataError
from intake.formats.folders import subject_folder, two_folders
from intake.formats.judgement import JudgementSource
from intake.formats.tables import metadata_file, read_table, several, tables_in
from intake.limits import Limits
from intake.rows import REQUIRED


def detect(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> tuple[JudgementSource, Lookup]:
    """A table called metadata first, then two folders, the only other table, a folder of images.

    ``prompt`` is for images that come without one. Raises MetadataError.
    """
    named = metadata_file(files)
    if named is not None:
        return _table(named, files, limits)
    folders = two_folders(files, limits, prompt)
    if folders is not None:
        return folders, Lookup(files)
    tables = tables_in(files)
    if len(tables) == 1:
        return _table(tables[0], files, limits)
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


def _table(name: str, files: Mapping[str, Entry], limits: Limits) -> tuple[JudgementSource, Lookup]:
    return read_table(name, files[name], limits, files), Lookup(files, name.rpartition("/")[0])
