"""Parquet files that hold the images themselves: Pick-a-Pic's, and any with our columns.

Read row by row from the mapped file, so that memory holds one unpacked page of each column whatever the file's size. A
page of a few bytes may unpack to gigabytes, and Arrow takes the size that the page itself claims: so reading runs under
a limit of the process's memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.archives.entries import Entry, check_total
from intake.errors import ArchiveError, IntakeError
from intake.findings import Finding
from intake.formats.judgement import Judgement, JudgementSource, Layout, row_finding
from intake.formats.own import OWN
from intake.formats.pick_a_pic import PICK_A_PIC
from intake.limits import Limits
from intake.memory import arrow, limited
from intake.rows import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SIGNATURE = b"PAR1"
FILE = "the parquet file"
_RELEASED = 64 * 2**20  # bytes of images after which the mapped file's pages are given back
_TEXT_BYTES = 2**16  # of one cell that is no image
LAYOUTS = (OWN, PICK_A_PIC)
_IMAGES: Mapping[str, tuple[str, ...]] = {
    PICK_A_PIC.name: ("jpg_0", "jpg_1"),
    OWN.name: ("chosen", "rejected"),
}
_READ: Mapping[str, frozenset[str]] = {
    PICK_A_PIC.name: frozenset({"caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "user_id"}),
    OWN.name: frozenset(COLUMNS),
}


def read_parquet(path: Path, limits: Limits) -> JudgementSource:
    """Raises ArchiveError for a file that is damaged, too large, or has neither format's columns."""
    file, mapped = _opened(path, limits)
    names = file.schema_arrow.names
    layout = next((layout for layout in LAYOUTS if layout.columns <= set(names)), None)
    if layout is None:
        known = "; or ".join(", ".join(sorted(layout.columns)) for layout in LAYOUTS)
        raise ArchiveError("metadata_columns", f"is a parquet file without the columns of a known format ({known})")
    columns = sorted(_READ[layout.name] & set(names))
    _check_columns(file.schema_arrow, columns, _IMAGES[layout.name])
    groups = range(file.metadata.num_row_groups)
    unpacked = sum(file.metadata.row_group(index).total_byte_size for index in groups)
    check_total(unpacked, path.stat().st_size, limits)
    judgements = _judgements(file, mapped, layout, columns, limits)
    return JudgementSource(f"parquet/{layout.name}", FILE, judgements, file.metadata.num_rows)


def _check_columns(schema: pa.Schema, columns: list[str], images: tuple[str, ...]) -> None:
    """Raises ArchiveError unless every column that is read stands once and holds what it should."""
    for name in columns:
        if schema.names.count(name) > 1:
            raise ArchiveError("metadata_columns", f"is a parquet file with two columns {name!r}; keep one")
        if name in images and not _holds_images(schema.field(name).type):
            reason = (
                f"is a parquet file whose column {name!r} holds no images; store their bytes, or a struct with bytes"
            )
            raise ArchiveError("metadata_columns", reason)
        if name not in images and not _is_plain(schema.field(name).type):
            reason = f"is a parquet file whose column {name!r} holds neither text nor numbers"
            raise ArchiveError("metadata_columns", f"{reason}; convert it")


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    if of.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return bool(of.is_null(kind) or of.is_binary(kind) or of.is_large_binary(kind))


def _is_plain(kind: pa.DataType) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    plain = (of.is_null, of.is_boolean, of.is_integer, of.is_floating, of.is_string, of.is_large_string)
    return any(is_one(kind) for is_one in plain)


def _opened(path: Path, limits: Limits) -> tuple[pq.ParquetFile, mmap.mmap]:
    """The file, and its bytes in memory: what is mapped is not copied, so that only unpacked pages take memory."""
    pa = arrow()
    import pyarrow.parquet as pq

    with path.open("rb") as content:
        mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
    with _reading(limits):
        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(mapped)), pre_buffer=False), mapped


def _judgements(
    file: pq.ParquetFile, mapped: mmap.mmap, layout: Layout, columns: list[str], limits: Limits
) -> Iterator[Judgement | Finding]:
    held = number = released = 0
    try:
        for row in _rows(file, columns, limits):
            number += 1
            entries: dict[str, Entry] = {}
            fields: dict[str, object] = {}
            error: str | None = None
            for name, cell in row.items():
                if name not in _IMAGES[layout.name]:
                    fields[name], error = _text_cell(name, cell, error)
                elif cell.is_valid:
                    fields[name], error = name, _image_cell(name, cell, number, entries, limits) or error
            if error is not None:
                yield row_finding(FILE, number, error)
                continue
            held += sum(entry.size for entry in entries.values())
            if held > limits.archive_bytes:
                reason = f"unpacks to more than {limits.archive_bytes:,} bytes; upload it in several parts"
                raise ArchiveError("archive_limits", reason)
            if held - released > _RELEASED:
                mapped.madvise(mmap.MADV_DONTNEED)  # or the whole file would count as this process's memory
                released = held
            for item in layout.translate(number, fields, FILE):
                yield item if isinstance(item, Finding) else _holding(item, entries)
        if number == 0:
            raise ArchiveError("metadata_empty", "holds no rows")
    except IntakeError as fault_of_file:
        yield Finding(fault_of_file.code, "error", f"{FILE} {fault_of_file.reason}.", FILE)


def _text_cell(name: str, cell: Any, error: str | None) -> tuple[object, str | None]:
    """Its value, and what is wrong with the row so far."""
    if cell.is_valid and hasattr(cell, "as_buffer") and cell.as_buffer().size > _TEXT_BYTES:
        return None, f"column {name!r} has more than {_TEXT_BYTES:,} bytes; shorten it"
    return cell.as_py(), error


def _image_cell(name: str, cell: Any, number: int, entries: dict[str, Entry], limits: Limits) -> str | None:
    """Puts the image among the entries, or says what is wrong with the row."""
    content = cell["bytes"] if hasattr(cell, "keys") else cell
    if not content.is_valid:
        return f"column {name!r} holds no image bytes, only where they were; store the bytes"
    size = content.as_buffer().size
    data = content.as_py() if size <= limits.image_bytes else b""  # the folder refuses one that is too large unread
    entries[name] = Entry(f"{name} of row {number}", "file", size, lambda: data)
    return None


def _rows(file: pq.ParquetFile, columns: list[str], limits: Limits) -> Iterator[dict[str, Any]]:
    """Arrow's scalars by column, one row after the other. Raises ArchiveError."""
    batches = file.iter_batches(1, columns=columns, use_threads=False)
    while True:
        with _reading(limits):
            batch = next(batches, None)
        if batch is None:
            return
        for index in range(batch.num_rows):
            yield {name: _plain(batch.column(name)[index]) for name in columns}


def _plain(cell: Any) -> Any:
    import pyarrow as pa

    return cell.value if isinstance(cell, pa.DictionaryScalar) and cell.is_valid else cell


@contextmanager
def _reading(limits: Limits) -> Iterator[None]:
    """Arrow at work on the upload, with so much memory to take. Raises ArchiveError."""
    pa = arrow()
    try:
        with limited(limits.parquet_memory):
            yield
    except MemoryError as error:
        reason = (
            f"takes more than {limits.parquet_memory:,} bytes of memory to read, because its pages are too large;"
            " write it with fewer rows a group, e.g. row_group_size=100 in pandas and pyarrow"
        )
        raise ArchiveError("archive_limits", reason) from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        text = "is a damaged parquet file, or has columns that cannot be read; copy it again, or write it again"
        raise ArchiveError("archive_unreadable", text) from error


def _holding(judgement: Judgement, entries: Mapping[str, Entry]) -> Judgement:
    return Judgement(judgement.number, judgement.fields, judgement.tied, entries)
