"""What every format makes of its rows: a prompt, two images, and which of them was preferred."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from intake.archives.entries import Entry
from intake.archives.lookup import Search
from intake.findings import Code, Finding
from intake.formats.columns import exact
from intake.report import LeftOut

Fields = Mapping[str, object]
# The file's own name of each of a layout's columns that it has.
Names = Mapping[str, str]


@dataclass(frozen=True)
class Judgement:
    """``fields`` have the names of ``intake.rows.Row`` and are not checked yet; ``number`` is the row's, from 1.

    ``tied``: neither image was preferred, and "chosen" is merely the first. ``held`` are images that the row itself
    holds, by the text that stands for their path. ``search`` says what a path may mean besides itself,
    and ``folder`` where it may start, too ("train/"). ``columns`` are the file's own names of the fields, for messages.
    ``file`` is where the row stands if the source has several tables.
    """

    number: int
    fields: Fields
    tied: bool = False
    held: Mapping[str, Entry] = field(default_factory=dict)
    search: Search = "path"
    folder: str = ""
    columns: Names = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True)
class JudgementSource:
    """An upload's judgements, read lazily. ``file`` is where they stand, as shown in findings.

    ``format`` is what the report names; ``total`` is the number of rows where it is known beforehand. ``used`` are
    files of the archive that are no images and were read, which is known when the judgements were; ``aside`` are images
    that are left out, by the reason.
    """

    format: str
    file: str
    judgements: Iterator[Judgement | Finding]
    total: int | None = None
    used: Collection[str] = ()
    aside: Mapping[str, LeftOut] = field(default_factory=dict)
    of_table: bool = False


Numbered = tuple[int, Fields]
# Of a row's number, its fields by the layout's names, the file as shown, and the file's own names of the columns.
Translate = Callable[[int, Fields, str, Names], Iterator[Judgement | Finding]]


@dataclass(frozen=True)
class Layout:
    """A table that another tool writes: ``columns`` are those by which it is recognised, ``more`` those it may have.

    ``images`` are the columns that name images or hold them. ``names`` finds the columns under other names, too; the
    plain way wants every one of ``columns`` by its name. ``one_a_row``: every row becomes one judgement, or none.
    """

    name: str
    columns: frozenset[str]
    translate: Translate
    one_a_row: bool = True
    more: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    finder: Callable[[Collection[str]], Names | None] | None = None

    def names(self, columns: Collection[str]) -> Names | None:
        """The file's own names of this layout's columns; None for a table that is not of this layout."""
        if self.finder is not None:
            return self.finder(columns)
        return exact(columns, self.columns, self.more)


def row_finding(file: str, number: int, reason: str, code: Code = "row_invalid") -> Finding:
    """What is wrong with one row; ``reason`` ends in what to do."""
    return Finding(code, "error", f"{file} row {number}: {reason}.", file, number)


def unlabelled(file: str, number: int) -> Finding:
    text = f"{file} row {number}: nobody said which image is preferred; the row is left out."
    return Finding("label_missing", "warning", text, file, number)


def compared(
    file: str,
    number: int,
    first_preferred: bool | None,
    images: tuple[object, object],
    fields: Fields,
    columns: Names,
    image_columns: tuple[str, str],
    *,
    search: Search = "path",
    folder: str = "",
) -> Judgement | Finding:
    """The judgement of two images in the order shown; ``first_preferred`` is None for a tie.

    Without both images there is nothing that was compared: one of them alone is no chosen image. ``columns`` are the
    file's names of ``fields``, ``image_columns`` those of the images.
    """
    absent = [
        name for name, image in zip(image_columns, images, strict=True) if image is None or not str(image).strip()
    ]
    if absent:
        reason = f"one of its two images is missing (column {absent[0]!r}); add it, or remove the row"
        return row_finding(file, number, reason, "image_missing")
    order = (0, 1) if first_preferred is not False else (1, 0)
    known = {"chosen": images[order[0]], "rejected": images[order[1]], **fields}
    named = {"chosen": image_columns[order[0]], "rejected": image_columns[order[1]], **columns}
    return Judgement(number, known, tied=first_preferred is None, search=search, folder=folder, columns=named)
