"""Tables in an archive: JSON lines, JSON, CSV and its relatives. Content and columns tell what they are, not names."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.columns import nearest, plain
from intake.formats.comparisons import argilla_record
from intake.formats.inline import held_inline
from intake.formats.judgement import Fields, Judgement, JudgementSource, Layout, Names, Numbered, row_finding
from intake.formats.label_studio import with_labelling
from intake.formats.layouts import Match, layout_of, no_layout
from intake.formats.own import OWN
from intake.limits import Limits
from intake.rows import COLUMNS

# A row of fields with its number, or what is wrong with that row.
RawRow = Numbered | Finding
Reader = Callable[[bytes, str], Iterator[RawRow]]

NAME = "metadata"  # of the table that is read where there are several
FORMAT_ROWS = 100  # rows at the start, of which the first that has a format's columns tells the format
DELIMITERS = ",;\t|"


def tables_in(names: Collection[str]) -> list[str]:
    """At the top or in a folder there, but for those that say something of one image."""
    images = {_stem(name) for name in names if _suffix(name) not in (*READERS, "xml", "html", "txt", "md")}
    near = [name for name in names if _suffix(name) in READERS and name.count("/") <= 1]
    return sorted(name for name in near if _stem(name) not in images)


def has_known_columns(name: str, entry: Entry, limits: Limits) -> bool:
    """Whether one of the first rows has the columns of a format."""
    if entry.size > limits.metadata_bytes:
        return False
    try:
        rows = itertools.islice(READERS[_suffix(name)](in_utf8(entry.read()), printable(name)), FORMAT_ROWS)
        fields = (argilla_record(row[1]) for row in rows if not isinstance(row, Finding))
        return any(layout_of(one.keys()) is not None for one in fields)
    except IntakeError:
        return False


def several(tables: Sequence[str]) -> MetadataError:
    shown = ", ".join(printable(name) for name in tables[:5])
    return MetadataError(
        "metadata_ambiguous", f"holds several tables ({shown}); keep one, or name it metadata, which is then read"
    )


def read_table(name: str, entry: Entry, limits: Limits, files: Mapping[str, Entry] | None = None) -> JudgementSource:
    """``name`` is the file's path in the archive, ``files`` are the archive's. What cannot be read at all is a finding
    among the judgements."""
    shown = printable(name)
    try:
        if entry.size > limits.metadata_bytes:
            reason = (
                f"is larger than {limits.metadata_bytes:,} bytes; upload the pairs in several archives, and images as "
                "files or in parquet, not inside the table"
            )
            raise MetadataError("metadata_unreadable", reason)
        data, suffix = in_utf8(entry.read()), _suffix(name)
        rows = READERS[suffix](data, shown)
        before: list[RawRow] = []
        match: Match | None = None
        for row in itertools.islice(rows, FORMAT_ROWS):
            before.append(row)
            if not isinstance(row, Finding) and (match := layout_of(argilla_record(row[1]).keys())) is not None:
                break
        if match is None and any(not isinstance(row, Finding) for row in before):
            columns = dict.fromkeys(name for row in before if not isinstance(row, Finding) for name in row[1])
            raise no_layout(list(columns)[: limits.findings])
    except IntakeError as error:
        return JudgementSource(f"archive/{_title(name, None)}", shown, iter([_whole(error, shown)]))
    match = match or Match(OWN, {})
    layout = with_labelling(match.layout, files or {})
    judgements = _judgements(itertools.chain(before, rows), replace(match, layout=layout), shown, limits)
    total = _count(data, suffix) if layout.one_a_row else None
    return JudgementSource(f"archive/{_title(name, layout)}", shown, judgements, total)


def _title(name: str, layout: Layout | None) -> str:
    ours = layout is None or layout.name == OWN.name
    return printable(name.rpartition("/")[2]) if ours or layout is None else layout.name.removesuffix("-short")


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""


def _judgements(rows: Iterator[RawRow], match: Match, file: str, limits: Limits) -> Iterator[Judgement | Finding]:
    """Every row's; then what is wrong with the file as a whole."""
    layout, seen, read = match.layout, dict[str, None](), set[str]()
    names_of: dict[tuple[str, ...], Names] = {}
    empty = True
    try:
        for row in rows:
            empty = False
            if isinstance(row, Finding):
                yield row
                continue
            number, fields = row
            fields = argilla_record(fields)
            key = tuple(fields)
            if key not in names_of:
                names_of = names_of if len(names_of) < limits.findings else {}
                names_of[key] = names_of_row(match, fields)
                seen |= dict.fromkeys(itertools.islice(fields, limits.findings)) if len(seen) < limits.findings else {}
                read |= set(names_of[key].values())
            names = names_of[key]
            translated = layout.translate(number, by_layout(fields, names), file, names)
            yield from (held_inline(item, file, limits) if isinstance(item, Judgement) else item for item in translated)
        if empty:
            raise MetadataError("metadata_empty", "holds no rows; add one row per pair")
    except IntakeError as error:
        yield _whole(error, file)
    if layout is OWN:
        yield from _unknown_columns([name for name in seen if name not in read], file)


def names_of_row(match: Match, columns: Collection[str]) -> Names:
    """The row's own names of the layout's columns. A row may lack some that others have; then it is read by the names
    of the whole table, and what it lacks is missing."""
    found = match.layout.names(columns)
    if found is not None:
        return found
    own = {plain(name): name for name in match.layout.columns | match.layout.more}
    there = {own[plain(name)]: name for name in columns if plain(name) in own}
    return {**{column: name for column, name in match.names.items() if name in columns}, **there}


def by_layout(fields: Fields, names: Names) -> dict[str, object]:
    """The row's fields by the layout's names."""
    return {column: fields[name] for column, name in names.items() if name in fields}


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
    if layout_of(document.keys()) is None and len(lists) == 1:
        rows: Iterable[object] = lists[0]
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
        header = [name.strip() for name in next(rows, [])]
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
    for delimiter in DELIMITERS:
        try:
            headers[delimiter] = next(
                (cells for cells in csv.reader(io.StringIO(text[:65_536], newline=""), delimiter=delimiter) if cells),
                [],
            )
        except csv.Error:
            continue
    known = [delimiter for delimiter, header in headers.items() if layout_of(header) is not None]
    return known[0] if known else max(headers, key=lambda one: len(headers[one]), default=",")


def _count(data: bytes, suffix: str) -> int | None:
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


def _unknown_columns(unread: Collection[str], file: str) -> Iterator[Finding]:
    """A warning for each column that nothing reads: it may be a misspelt one."""
    for name in sorted(unread):
        near = nearest(name, COLUMNS)
        known = f"did you mean {near!r}?" if near is not None else f"known columns are {', '.join(COLUMNS)}."
        yield Finding("column_unknown", "warning", f"{file}: column {printable(name)!r} is not read; {known}", file)


def _whole(error: IntakeError, file: str) -> Finding:
    return Finding(error.code, "error", f"{file} {error.reason}.", file)


def _cause(error: Exception) -> str:
    return printable(str(error))
