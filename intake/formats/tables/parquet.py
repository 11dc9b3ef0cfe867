"""Parquet and Arrow files: tables of any layout that hold the images themselves, or name files of their archive.

Read row by row from the mapped file, so that memory holds one unpacked page of each column whatever the file's size. A
page of a few bytes may unpack to gigabytes, and Arrow takes the size that the page itself claims: so reading runs under
a limit of the process's memory.
"""

from __future__ import annotations

import decimal
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake.archives.entries import Entry, check_total
from intake.errors import ArchiveError, IntakeError
from intake.findings import Finding, printable
from intake.formats.judgement import Judgement, JudgementSource, row_finding
from intake.formats.layouts import Match, layout_of, no_layout
from intake.limits import Limits
from intake.memory import arrow, limited

if TYPE_CHECKING:
    import pyarrow as pa

SIGNATURE = b"PAR1"
ARROW_FILE = b"ARROW1"
FILE = "the parquet file"
_RELEASED = 64 * 2**20  # bytes of images after which the mapped file's pages are given back
_TEXT_BYTES = 2**16  # of one cell that is no image
_LIST_LENGTH = 1_000  # of one cell that is a list


@dataclass(frozen=True)
class _Table:
    """An Arrow table that is read batch by batch. ``rows`` is their number where it is known, ``unpacked`` the bytes
    that they claim to take; ``release`` gives back what reading has taken so far."""

    schema: pa.Schema
    batches: Callable[[list[str]], Iterator[pa.RecordBatch]]
    rows: int | None
    unpacked: int
    release: Callable[[], None]


def read_parquet(path: Path, limits: Limits) -> JudgementSource:
    """A parquet file that was uploaded by itself. Raises ArchiveError for one that is damaged, too large, or has no
    format's columns."""
    with path.open("rb") as content:
        mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
    # What is mapped is not copied; without advice the whole file would count as this process's memory.
    table = _parquet(mapped, limits, lambda: mapped.madvise(mmap.MADV_DONTNEED))
    match = _match(table.schema)
    _check_columns(table.schema, match, in_archive=False)
    check_total(table.unpacked, len(mapped), limits)
    return JudgementSource(
        f"parquet/{match.layout.name}", FILE, _judgements(table, match, FILE, limits, in_archive=False), table.rows
    )


def read_arrow_entry(name: str, entry: Entry, limits: Limits) -> JudgementSource:
    """A parquet or Arrow file of an archive. Raises IntakeError."""
    shown, data = printable(name), entry.read()
    is_parquet = data.startswith(SIGNATURE)
    table = (_parquet if is_parquet else _arrow)(data, limits, lambda: None)
    match = _match(table.schema)
    _check_columns(table.schema, match, in_archive=True)
    check_total(table.unpacked, len(data), limits)
    kind = "parquet" if is_parquet else "arrow"
    return JudgementSource(
        f"{kind}/{match.layout.name}", shown, _judgements(table, match, shown, limits, in_archive=True), table.rows
    )


def _match(schema: pa.Schema) -> Match:
    match = layout_of(schema.names)
    if match is None:
        error = no_layout(schema.names)
        raise ArchiveError(error.code, error.reason)
    return match


def _check_columns(schema: pa.Schema, match: Match, *, in_archive: bool) -> None:
    """Raises ArchiveError unless every column that is read stands once and holds what it should."""
    for column, name in match.names.items():
        if schema.names.count(name) > 1:
            raise ArchiveError("metadata_columns", f"has two columns {name!r}; keep one")
        kind = schema.field(name).type
        if column in match.layout.images:
            if not _holds_images(kind) and not (in_archive and _is_text(kind)):
                what = "paths or addresses of images, not the images" if _is_text(kind) else "no images"
                reason = f"has a column {name!r} that holds {what}; store their bytes, or a struct with bytes"
                also = "" if in_archive else ", or pack the file with the images as an archive"
                raise ArchiveError("metadata_columns", f"{reason}{also}")
        elif not _is_plain(kind):
            raise ArchiveError(
                "metadata_columns", f"has a column {name!r} that holds neither text nor numbers; convert it"
            )


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    if of.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    if of.is_list(kind) or of.is_large_list(kind):
        return bool(of.is_uint8(kind.value_type))
    return any(is_one(kind) for is_one in (of.is_null, of.is_binary, of.is_large_binary, of.is_binary_view))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    return any(is_one(kind) for is_one in (of.is_string, of.is_large_string, of.is_string_view))


def _is_plain(kind: pa.DataType) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    if of.is_list(kind) or of.is_large_list(kind):
        return _is_plain(kind.value_type)
    plain = (of.is_null, of.is_boolean, of.is_integer, of.is_floating, of.is_decimal)
    return _is_text(kind) or any(is_one(kind) for is_one in plain)


def _parquet(data: Any, limits: Limits, release: Callable[[], None]) -> _Table:
    pa = arrow()
    import pyarrow.parquet as pq

    with _reading(limits):
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)), pre_buffer=False)
    groups = range(file.metadata.num_row_groups)
    unpacked = sum(file.metadata.row_group(index).total_byte_size for index in groups)

    def batches(columns: list[str]) -> Iterator[Any]:
        return iter(file.iter_batches(1, columns=columns, use_threads=False))

    return _Table(file.schema_arrow, batches, file.metadata.num_rows, unpacked, release)


def _arrow(data: bytes, limits: Limits, release: Callable[[], None]) -> _Table:
    """A stream, as ``datasets`` saves its tables, or a file of Arrow's other form. Its batches are not copied."""
    pa = arrow()
    with _reading(limits):
        if data.startswith(ARROW_FILE):
            file = pa.ipc.open_file(pa.py_buffer(data))
            schema, found = file.schema, (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            stream = pa.ipc.open_stream(pa.py_buffer(data))
            schema, found = stream.schema, iter(stream)
    return _Table(schema, lambda columns: (batch.select(columns) for batch in found), None, 0, release)


def _judgements(
    table: _Table, match: Match, file: str, limits: Limits, *, in_archive: bool
) -> Iterator[Judgement | Finding]:
    layout, column_of = match.layout, {name: column for column, name in match.names.items()}
    held = number = released = 0
    try:
        for row in _rows(table, list(column_of), limits):
            number += 1
            entries: dict[str, Entry] = {}
            fields: dict[str, object] = {}
            error: str | None = None
            for name, cell in row.items():
                if column_of[name] not in layout.images or _is_text(cell.type):
                    fields[column_of[name]], error = _text_cell(name, cell, error)
                elif cell.is_valid:
                    fields[column_of[name]], fault = _image_cell(name, cell, number, entries, limits)
                    if fields[column_of[name]] not in entries and not in_archive:
                        fault = f"column {name!r} holds no image bytes, only where they were; store the bytes"
                    error = error or fault
            if error is not None:
                yield row_finding(file, number, error)
                continue
            held += sum(entry.size for entry in entries.values())
            if held > limits.archive_bytes:
                reason = f"unpacks to more than {limits.archive_bytes:,} bytes; upload it in several parts"
                raise ArchiveError("archive_limits", reason)
            if held - released > _RELEASED:
                table.release()
                released = held
            for item in layout.translate(number, fields, file, match.names):
                yield item if isinstance(item, Finding) else _holding(item, entries)
        if number == 0:
            raise ArchiveError("metadata_empty", "holds no rows")
    except IntakeError as fault_of_file:
        yield Finding(fault_of_file.code, "error", f"{file} {fault_of_file.reason}.", file)


def _text_cell(name: str, cell: Any, error: str | None) -> tuple[object, str | None]:
    """Its value, and what is wrong with the row so far."""
    if cell.is_valid and hasattr(cell, "as_buffer") and cell.as_buffer().size > _TEXT_BYTES:
        return None, f"column {name!r} has more than {_TEXT_BYTES:,} bytes; shorten it"
    if cell.is_valid and hasattr(cell, "values") and len(cell.values) > _LIST_LENGTH:
        return None, f"column {name!r} has a list of more than {_LIST_LENGTH:,} values; shorten it"
    value = cell.as_py()
    if isinstance(value, decimal.Decimal) or hasattr(value, "item"):  # numpy's, of half precision
        value = float(value)
    return value, error


def _image_cell(
    name: str, cell: Any, number: int, entries: dict[str, Entry], limits: Limits
) -> tuple[str | None, str | None]:
    """The path that stands for the image, which is put among the entries if the cell holds it; or what is wrong."""
    content = cell["bytes"] if hasattr(cell, "keys") else cell
    if not content.is_valid:
        path = cell["path"].as_py() if "path" in cell else None
        if isinstance(path, str) and path.strip():
            return path, None
        return None, f"column {name!r} holds no image bytes; store the bytes"
    buffer = content.as_buffer() if hasattr(content, "as_buffer") else memoryview(content.values.to_numpy())
    size = buffer.size if hasattr(buffer, "size") else buffer.nbytes
    # The folder refuses one that is too large unread.
    data = (content.as_py() if hasattr(content, "as_buffer") else bytes(buffer)) if size <= limits.image_bytes else b""
    entries[name] = Entry(f"{name} of row {number}", "file", size, lambda: data)
    return name, None


def _rows(table: _Table, columns: list[str], limits: Limits) -> Iterator[dict[str, Any]]:
    """Arrow's scalars by column, one row after the other. Raises ArchiveError."""
    batches = table.batches(columns)
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
    return replace(judgement, held=entries)
