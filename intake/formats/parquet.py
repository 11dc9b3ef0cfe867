"""Parquet files that hold the images themselves: Pick-a-Pic's, and any with our columns.

Read row group by row group and in small batches, so that memory holds a few rows of images whatever the file's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.entries import Entry
from intake.errors import ArchiveRefused, Refused
from intake.findings import Finding
from intake.formats.judgement import Judgement, Layout, Source
from intake.formats.layouts import known_layouts, layout_of
from intake.formats.own import OWN
from intake.formats.pick_a_pic import PICK_A_PIC
from intake.limits import Limits
from intake.rows import COLUMNS

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SIGNATURE = b"PAR1"
FILE = "the parquet file"
ROWS_AT_ONCE = 16
_BUFFER = 2**20  # bytes of a column that are read ahead
_IMAGES: Mapping[str, tuple[str, ...]] = {
    PICK_A_PIC.name: ("jpg_0", "jpg_1"),
    OWN.name: ("chosen", "rejected"),
}
_READ: Mapping[str, frozenset[str]] = {
    PICK_A_PIC.name: frozenset({"caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "user_id"}),
    OWN.name: frozenset(COLUMNS),
}


def read_parquet(path: Path, limits: Limits) -> Source:
    """Raises ArchiveRefused for a file that is damaged, too large, or has neither format's columns."""
    file = _opened(path)
    layout = layout_of(file.schema_arrow.names)
    if layout is None or layout.name not in _IMAGES:
        raise ArchiveRefused("metadata_columns", f"lacks the columns of a known format ({known_layouts()})")
    unpacked = sum(file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))
    if unpacked > limits.archive_bytes:
        raise ArchiveRefused(
            "archive_limits", f"unpacks to more than {limits.archive_bytes:,} bytes; upload it in several parts"
        )
    return Source(f"parquet/{layout.name}", FILE, _judgements(file, layout, limits), file.metadata.num_rows)


def _opened(path: Path) -> pq.ParquetFile:
    # Imported here: the API imports this package for its reports and should not hold Arrow's 60 MB.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged() from error


def _judgements(file: pq.ParquetFile, layout: Layout, limits: Limits) -> Iterator[Judgement | Finding]:
    images = _IMAGES[layout.name]
    held = number = 0
    try:
        for row in _rows(file, sorted(_READ[layout.name] & set(file.schema_arrow.names))):
            number += 1
            entries = {name: entry for name in images if (entry := _entry(row.get(name), name, number)) is not None}
            held += sum(entry.size for entry in entries.values())
            if held > limits.archive_bytes:
                reason = f"unpacks to more than {limits.archive_bytes:,} bytes; upload it in several parts"
                raise ArchiveRefused("archive_limits", reason)
            fields = row | {name: name if name in entries else None for name in images}
            for item in layout.translate(number, fields, FILE):
                yield item if isinstance(item, Finding) else _holding(item, entries)
        if number == 0:
            raise ArchiveRefused("metadata_empty", "holds no rows")
    except Refused as fault:
        yield Finding(fault.code, "error", f"{FILE} {fault.reason}.", FILE)


def _rows(file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    """One after the other. Raises ArchiveRefused."""
    import pyarrow as pa

    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _damaged() from error


def _holding(judgement: Judgement, entries: Mapping[str, Entry]) -> Judgement:
    return Judgement(judgement.number, judgement.fields, judgement.tied, entries)


def _entry(value: object, column: str, number: int) -> Entry | None:
    """The bytes of a cell: bytes themselves, or the ``bytes`` of Hugging Face's Image feature."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes):
        return None
    return Entry(f"{column} of row {number}", "file", len(data), lambda: data)


def _damaged() -> ArchiveRefused:
    return ArchiveRefused("archive_unreadable", "is a damaged parquet file; copy it again")
