"""Finding the metadata file of an archive and reading its rows: one reader per format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping

from intake.errors import MetadataRefused, Refused
from intake.findings import Finding, printable
from intake.limits import Limits
from intake.rows import COLUMNS, REQUIRED, Row, parse_row

# A row of fields with its number, or what is wrong with that row.
RawRow = tuple[int, Mapping[str, object]] | Finding
Reader = Callable[[bytes, str], Iterator[RawRow]]


def find_metadata(names: Collection[str]) -> str:
    """The archive's metadata file: at the top, or in one folder there. Raises MetadataRefused."""
    found = [name for name in names if name.rpartition("/")[2] in READERS and name.count("/") <= 1]
    at_top = [name for name in found if "/" not in name]
    candidates = sorted(at_top or found)
    if not candidates:
        raise MetadataRefused(
            "metadata_missing",
            "holds no metadata.jsonl or metadata.csv at the top or in its top folder; add one with the columns"
            f" {', '.join(REQUIRED)} and, where there is one, rejected",
        )
    if len(candidates) > 1:
        shown = ", ".join(printable(name) for name in candidates[:5])
        raise MetadataRefused("metadata_ambiguous", f"holds several metadata files ({shown}); keep one")
    return candidates[0]


def read_jsonl(data: bytes, file: str) -> Iterator[RawRow]:
    """One JSON object per line; the row number is the line number. Blank lines are skipped."""
    for number, line in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
            yield _bad_row(file, number, f"line {number} is not JSON in UTF-8 ({printable(str(error))})")
            continue
        if isinstance(fields, dict):
            yield number, fields
        else:
            yield _bad_row(file, number, f"line {number} is not a JSON object")


def read_csv(data: bytes, file: str) -> Iterator[RawRow]:
    """A header with column names, then rows; comma-separated, quoted as in RFC 4180. Raises MetadataRefused."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 (byte {error.start:,}); save it as UTF-8"
        raise MetadataRefused("metadata_unreadable", reason) from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        _check_header(header)
        for number, cells in enumerate((cells for cells in rows if cells), start=1):
            if len(cells) == len(header):
                yield number, {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=True)}
            else:
                yield _bad_row(file, number, f"it has {len(cells)} cells where the header has {len(header)}")
    except csv.Error as error:
        reason = f"is not valid CSV (line {rows.line_num}: {error}); save it again"
        raise MetadataRefused("metadata_unreadable", reason) from error


READERS: Mapping[str, Reader] = {"metadata.jsonl": read_jsonl, "metadata.csv": read_csv}


def read_rows(name: str, read: Callable[[], bytes], size: int, limits: Limits) -> Iterator[tuple[int, Row] | Finding]:
    """Every row with its number, or what is wrong with it; then what is wrong with the file as a whole.

    ``name`` is the file's path in the archive, ``read`` returns its content, ``size`` bytes.
    """
    shown = printable(name)
    seen: set[str] = set()
    empty = True
    try:
        if size > limits.metadata_bytes:
            reason = f"is larger than {limits.metadata_bytes:,} bytes; upload the pairs in several archives"
            raise MetadataRefused("metadata_unreadable", reason)
        for raw in READERS[name.rpartition("/")[2]](read(), shown):
            empty = False
            if isinstance(raw, Finding):
                yield raw
            else:
                seen.update(raw[1])
                yield from parse_row(raw[1], shown, raw[0], limits)
        if empty:
            raise MetadataRefused("metadata_empty", "holds no rows; add one row per pair")
    except Refused as refused:
        yield Finding(refused.code, "error", f"{shown} {refused.reason}.", shown)
    yield from _unknown_columns(seen, shown)


def _unknown_columns(seen: Collection[str], file: str) -> Iterator[Finding]:
    """A warning for each column that nothing reads: it may be a misspelt one."""
    for name in sorted(set(seen) - set(COLUMNS)):
        text = f"{file}: column {printable(name)!r} is not read; known columns are {', '.join(COLUMNS)}."
        yield Finding("column_unknown", "warning", text, file)


def _check_header(header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if header and missing:
        raise MetadataRefused("metadata_columns", f"has no column {', '.join(missing)}; add it to the first line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise MetadataRefused("metadata_columns", f"has two columns {printable(twice[0])!r}; keep one")


def _bad_row(file: str, number: int, reason: str) -> Finding:
    return Finding("row_invalid", "error", f"{file} row {number}: {reason}; correct the row.", file, number)
