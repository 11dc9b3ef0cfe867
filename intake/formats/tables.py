"""Tables in an archive: JSON lines, a JSON list or CSV, whose columns tell whose they are."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.judgement import Judgement, JudgementSource, Layout, Numbered, row_finding
from intake.formats.layouts import layout_of
from intake.formats.own import OWN
from intake.limits import Limits
from intake.rows import COLUMNS, REQUIRED

# A row of fields with its number, or what is wrong with that row.
RawRow = Numbered | Finding
Reader = Callable[[bytes, str], Iterator[RawRow]]

NAME = "metadata"  # of the table that is read where there are several
FORMAT_ROWS = 100  # rows at the start, of which the first that has a format's columns tells the format


def tables_in(names: Collection[str]) -> list[str]:
    """At the top or in a folder there, but for those that say something of one image."""
    images = {_stem(name) for name in names if _suffix(name) not in READERS}
    near = [name for name in names if _suffix(name) in READERS and name.count("/") <= 1]
    return sorted(name for name in near if _stem(name) not in images)


def has_known_columns(name: str, entry: Entry, limits: Limits) -> bool:
    """Whether one of the first rows has the columns of a format."""
    if entry.size > limits.metadata_bytes:
        return False
    try:
        rows = itertools.islice(READERS[_suffix(name)](entry.read(), printable(name)), FORMAT_ROWS)
        return any(not isinstance(row, Finding) and layout_of(row[1].keys()) is not None for row in rows)
    except IntakeError:
        return False


def several(tables: Sequence[str]) -> MetadataError:
    shown = ", ".join(printable(name) for name in tables[:5])
    return MetadataError(
        "metadata_ambiguous", f"holds several tables ({shown}); keep one, or name it metadata, which is then read"
    )


def read_table(name: str, entry: Entry, limits: Limits) -> JudgementSource:
    """``name`` is the file's path in the archive. What cannot be read at all is a finding among the judgements."""
    shown = printable(name)
    try:
        if entry.size > limits.metadata_bytes:
            reason = f"is larger than {limits.metadata_bytes:,} bytes; upload the pairs in several archives"
            raise MetadataError("metadata_unreadable", reason)
        data, suffix = entry.read(), _suffix(name)
        rows = READERS[suffix](data, shown)
        before: list[RawRow] = []
        layout: Layout | None = None
        for row in itertools.islice(rows, FORMAT_ROWS):
            before.append(row)
            if not isinstance(row, Finding) and (layout := layout_of(row[1].keys())) is not None:
                break
    except IntakeError as error:
        return JudgementSource(f"archive/{_title(name, None)}", shown, iter([_whole(error, shown)]))
    judgements = _judgements(itertools.chain(before, rows), layout or OWN, shown, limits.findings)
    total = _count(data, suffix) if layout is None or layout.one_a_row else None
    return JudgementSource(f"archive/{_title(name, layout)}", shown, judgements, total)


def _title(name: str, layout: Layout | None) -> str:
    return layout.name if layout is not None and layout is not OWN else printable(name.rpartition("/")[2])


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""


def _judgements(rows: Iterator[RawRow], layout: Layout, file: str, max_columns: int) -> Iterator[Judgement | Finding]:
    """Every row's; then what is wrong with the file as a whole."""
    seen: set[str] = set()
    empty = True
    try:
        for row in rows:
            empty = False
            if isinstance(row, Finding):
                yield row
                continue
            number, fields = row
            if layout is OWN and len(seen) < max_columns:
                seen.update(itertools.islice(fields, max_columns))
            yield from layout.translate(number, fields, file)
        if empty:
            raise MetadataError("metadata_empty", "holds no rows; add one row per pair")
    except IntakeError as error:
        yield _whole(error, file)
    yield from _unknown_columns(seen, file)


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
    """A header with column names, then rows; comma-separated, quoted as in RFC 4180. Raises MetadataError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 (byte {error.start:,}); save it as UTF-8"
        raise MetadataError("metadata_unreadable", reason) from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        _check_header(header)
        for number, cells in enumerate((cells for cells in rows if cells), start=1):
            if len(cells) == len(header):
                yield number, {name: cell if cell.strip() else None for name, cell in zip(header, cells, strict=True)}
            else:
                reason = f"it has {len(cells)} cells where the header has {len(header)}; correct the row"
                yield row_finding(file, number, reason)
    except csv.Error as error:
        reason = f"is not valid CSV (line {rows.line_num}: {error}); save it again"
        raise MetadataError("metadata_unreadable", reason) from error


def _count(data: bytes, suffix: str) -> int | None:
    """How many rows there will be, where that is told without reading them: not of a JSON list, nor of damaged CSV."""
    if suffix == "jsonl":
        return sum(1 for line in io.BytesIO(data) if line.strip())
    if suffix == "json":
        return None
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), strict=True)
    try:
        return max(0, sum(1 for cells in rows if cells) - 1)
    except csv.Error:
        return None


READERS: Mapping[str, Reader] = {"jsonl": read_jsonl, "json": read_json, "csv": read_csv}


def _once(members: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these members. A name that stands twice could swap a preference: ValueError."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("an object names something twice")
    return found


def _check_header(header: list[str]) -> None:
    if header and layout_of(header) is None:
        missing = ", ".join(name for name in REQUIRED if name not in header)
        reason = (
            f"has no column {missing}; add it to the first line, or use another format's columns"
            " (docs/reference/formats.md)"
        )
        raise MetadataError("metadata_columns", reason)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise MetadataError("metadata_columns", f"has two columns {printable(twice[0])!r}; keep one")


def _unknown_columns(seen: Collection[str], file: str) -> Iterator[Finding]:
    """A warning for each column that nothing reads: it may be a misspelt one."""
    for name in sorted(set(seen) - set(COLUMNS)):
        text = f"{file}: column {printable(name)!r} is not read; known columns are {', '.join(COLUMNS)}."
        yield Finding("column_unknown", "warning", text, file)


def _whole(error: IntakeError, file: str) -> Finding:
    return Finding(error.code, "error", f"{file} {error.reason}.", file)


def _cause(error: Exception) -> str:
    return printable(str(error))
