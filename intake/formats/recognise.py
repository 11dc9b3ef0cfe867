"""Which format an archive is, told by what is in it."""

from __future__ import annotations

from collections.abc import Mapping

from intake.entries import Entry
from intake.errors import MetadataRefused
from intake.formats.folders import subject_folder, two_folders
from intake.formats.judgement import Source
from intake.formats.tables import find_table, named_metadata, read_table
from intake.limits import Limits
from intake.lookup import Lookup
from intake.rows import REQUIRED


def recognise(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> tuple[Source, Lookup]:
    """A file named metadata first, then two folders, any other single table, a folder of images.

    ``prompt`` is for images that come without one. Raises MetadataRefused.
    """
    table = find_table(files)
    if not named_metadata(table) and (folders := two_folders(files, limits, prompt)) is not None:
        return folders, Lookup(files)
    if table is not None:
        return read_table(table, files[table], limits), Lookup(files, table.rpartition("/")[0])
    images = subject_folder(files, limits, prompt)
    if images is not None:
        return images, Lookup(files)
    raise MetadataRefused(
        "metadata_missing",
        "holds no metadata.jsonl or metadata.csv at the top or in its top folder; add one with the columns"
        f" {', '.join(REQUIRED)} and, where there is one, rejected. Images alone need captions (docs/data.md)",
    )
