"""Text tables in an archive: whose they are by their columns, and a judgement of each row."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.columns import nearest, plain
from intake.formats.comparisons import argilla_record
from intake.formats.judgement import Fields, Judgement, JudgementSource, Layout, Names
from intake.formats.label_studio import with_labelling
from intake.formats.layouts import Match, layout_of, no_layout
from intake.formats.own import OWN
from intake.formats.tables.inline import held_inline
from intake.formats.tables.text import READERS, RawRow, count_rows, in_utf8
from intake.limits import Limits
from intake.rows import COLUMNS

NAME = "metadata"  # of the table that is read where there are several
FORMAT_ROWS = 100  # rows at the start, of which the first that has a format's columns tells the format


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
    total = count_rows(data, suffix) if layout.one_a_row else None
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


def _unknown_columns(unread: Collection[str], file: str) -> Iterator[Finding]:
    """A warning for each column that nothing reads: it may be a misspelt one."""
    for name in sorted(unread):
        near = nearest(name, COLUMNS)
        known = f"did you mean {near!r}?" if near is not None else f"known columns are {', '.join(COLUMNS)}."
        yield Finding("column_unknown", "warning", f"{file}: column {printable(name)!r} is not read; {known}", file)


def _whole(error: IntakeError, file: str) -> Finding:
    return Finding(error.code, "error", f"{file} {error.reason}.", file)
