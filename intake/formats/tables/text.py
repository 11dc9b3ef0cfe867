"""The rows of text tables: JSON in any form, CSV and its relatives. Content tells what they are, not suffixes."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from intake.errors import MetadataError
from intake.findings import Finding, printable
from intake.formats.judgement import Numbered, row_finding
from intake.formats.layouts import layout_of, no_layout

# A row of fields with its number, or what is wrong with that row.
RawRow = Numbered | Finding
Reader = Callable[[bytes, str], Iterator[RawRow]]

_UNNAMED = re.compile(r"Unnamed: \d+(_level_\d+)?")  # pandas' name of a column that has none
_DELIMITERS = ",;\t|"


def in_utf8(data: bytes) -> bytes:
    """The same text in UTF-8 without its mark: spreadsheets and PowerShell write UTF-16, which its mark tells."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16").encode("utf-8")
        except UnicodeError as error:
            raise MetadataError("metadata_unreadable", "is damaged UTF-16; save it as UTF-8") from error
    return data.removeprefix(b"\xef\xbb\xbf")


def read_jsonl(data: bytes, file: str) -> Iterator[RawRow]:
    """One JSON object per line; the row number is the line number. Blank lines are skipped."""
    for number, line in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
            yield row_finding(file, number, f"line {number} is not JSON in UTF-8 ({_cause(error)}); correct the row")
            continue
        if isinstance(fields, dict):
            yield number, fields
        else:
            yield row_finding(file, number, f"line {number} is not a JSON object; correct the row")


def read_any_json(data: bytes, file: str) -> Iterator[RawRow]:
    """A list, lines, or an object that holds the rows: suffixes are mixed up. Raises MetadataError."""
    start = data.lstrip()[:1]
    if start == b"[" and _is_list(data):
        return read_json(data, file)
    first, _, rest = data.lstrip().partition(b"\n")
    if (start == b"{" and not rest.strip()) or (start == b"{" and not _is_object(first)):
        return _rows_of_object(data, file)
    return read_jsonl(data, file)


def _is_list(data: bytes) -> bool:
    """Whether the text is one list: lines may hold a list each, which are no rows."""
    first, _, rest = data.strip().partition(b"\n")
    return not (rest.strip() and first.rstrip().endswith(b"]") and rest.lstrip()[:1] in (b"[", b"{"))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _rows_of_object(data: bytes, file: str) -> Iterator[RawRow]:
    """Rows under a name (``{"data": [...]}``), columns as pandas writes them by default, or one row alone."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        yield from read_jsonl(data, file)  # which says of each line what is wrong with it
        return
    values = list(document.values())
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    names, cells = document.get("columns"), document.get("data")
    rows: Iterable[object]
    if isinstance(names, list) and isinstance(cells, list) and all(isinstance(one, list) for one in cells):
        rows = (dict(zip(map(str, names), one, strict=False)) for one in cells)  # pandas' orient="split"
    elif layout_of(document.keys()) is None and len(lists) == 1:
        rows = lists[0]
    elif values and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        rows = ({name: document[name][at] for name in document} for at in values[0])
    elif values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        rows = (dict(zip(document, cells, strict=True)) for cells in zip(*values, strict=True))
    else:
        rows = [document] if document else []
    for number, fields in enumerate(rows, start=1):
        if isinstance(fields, dict):
            yield number, fields
        else:
            yield row_finding(file, number, "it is not a JSON object; correct the row")


def read_json(data: bytes, file: str) -> Iterator[RawRow]:
    """A list of objects, numbered from 1. Only one of them is in memory at a time. Raises MetadataError."""
    decoder, space = json.JSONDecoder(object_pairs_hook=_once), json.decoder.WHITESPACE  # type: ignore[attr-defined]
    try:
        text = data.decode("utf-8-sig")
        at = space.match(text).end()
        if text[at : at + 1] != "[":
            raise MetadataError("metadata_unreadable", "is not a JSON list; save it as a list of objects")
        at = space.match(text, at + 1).end()
        for number in itertools.count(1):
            if number == 1 and text[at : at + 1] == "]":
                return
            fields, at = decoder.raw_decode(text, at)
            yield (
                (number, fields)
                if isinstance(fields, dict)
                else row_finding(file, number, "it is not a JSON object; correct the row")
            )
            at = space.match(text, at).end()
            if text[at : at + 1] != ",":
                break
            at = space.match(text, at + 1).end()
        if text[at : at + 1] != "]":
            raise MetadataError("metadata_unreadable", "is a JSON list that does not end; save it again")
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise MetadataError("metadata_unreadable", f"is not JSON in UTF-8 ({_cause(error)}); save it again") from error


def read_csv(data: bytes, file: str) -> Iterator[RawRow]:
    """A header with column names, then rows, quoted as in RFC 4180. Commas, semicolons, tabs or bars part the cells.

    Columns without a name (pandas' index, a spreadsheet's empty ones) are not read. Raises MetadataError.
    """
    rows = _csv_rows(data)
    try:
        header = ["" if _UNNAMED.fullmatch(name.strip()) else name.strip() for name in next(rows, [])]
        _check_header(header)
        for number, cells in enumerate(rows, start=1):
            if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
                reason = f"it has {len(cells)} cells where the header has {len(header)}; correct the row"
                yield row_finding(file, number, reason)
            else:
                yield (
                    number,
                    {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=False) if name},
                )
    except csv.Error as error:
        if "field larger" in str(error):
            limit = f"{csv.field_size_limit():,}"
            reason = f"has a cell of more than {limit} characters; put images in files or in parquet, not into cells"
            raise MetadataError("metadata_unreadable", reason) from error
        raise MetadataError("metadata_unreadable", f"is not valid CSV ({error}); save it again") from error


def _csv_rows(data: bytes) -> Iterator[list[str]]:
    """The header, then every row that is not empty. Raises MetadataError and csv.Error."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 (byte {error.start:,}), as text in Windows-1252 is not; save it as UTF-8 CSV"
        raise MetadataError("metadata_unreadable", reason) from error
    lines = io.StringIO(text, newline="")
    first = text[:8].partition("\n")[0].rstrip("\r")
    if first.casefold().startswith("sep=") and len(first) == 5:  # a spreadsheet's own way to say it
        delimiter = first[4]
        lines.readline()
    else:
        delimiter = _delimiter(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        yield from (cells for cells in reader if any(cell.strip() for cell in cells))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from error


def _delimiter(text: str) -> str:
    """The one whose header has a format's columns, else the one that gives the most columns."""
    headers = {}
    for delimiter in _DELIMITERS:
        try:
            headers[delimiter] = next(
                (cells for cells in csv.reader(io.StringIO(text[:65_536], newline=""), delimiter=delimiter) if cells),
                [],
            )
        except csv.Error:
            continue
    known = [delimiter for delimiter, header in headers.items() if layout_of(header) is not None]
    return known[0] if known else max(headers, key=lambda one: len(headers[one]), default=",")


def count_rows(data: bytes, suffix: str) -> int | None:
    """How many rows there will be, where that is told without reading them: not of a JSON list, nor of damaged CSV."""
    if suffix in ("json", "jsonl", "ndjson"):
        listed = data.lstrip()[:1] != b"{" or not _is_object(data.lstrip().partition(b"\n")[0])
        return None if listed else sum(1 for line in io.BytesIO(data) if line.strip())
    try:
        return max(0, sum(1 for _ in _csv_rows(data)) - 1)
    except (csv.Error, MetadataError):
        return None


READERS: Mapping[str, Reader] = {
    "jsonl": read_any_json, "ndjson": read_any_json, "json": read_any_json, "csv": read_csv, "tsv": read_csv,
}  # fmt: skip


def _once(members: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these members. A name that stands twice could swap a preference: ValueError."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("an object names something twice")
    return found


def _check_header(header: list[str]) -> None:
    columns = [name for name in header if name]
    if columns and layout_of(columns) is None:
        raise no_layout(columns)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise MetadataError("metadata_columns", f"has two columns {printable(twice[0])!r}; keep one")


def _cause(error: Exception) -> str:
    return printable(str(error))
