"""What every format makes of its rows: a prompt, two images, and which of them was preferred."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from intake.archives.entries import Entry
from intake.archives.lookup import Search
from intake.findings import Code, Finding
from intake.report import LeftOut

Fields = Mapping[str, object]


@dataclass(frozen=True)
class Judgement:
    """``fields`` have the names of ``intake.rows.Row`` and are not checked yet; ``number`` is the row's, from 1.

    ``tied``: neither image was preferred, and "chosen" is merely the first. ``held`` are images that the row itself
    holds, by the text that stands for their path. ``search`` says what a path may mean besides itself,
    and ``folder`` where it may start, too ("train/"). ``file`` is where the row stands if the source has several.
    """

    number: int
    fields: Fields
    tied: bool = False
    held: Mapping[str, Entry] = field(default_factory=dict)
    search: Search = "path"
    folder: str = ""
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


Numbered = tuple[int, Fields]
Translate = Callable[[int, Fields, str], Iterator[Judgement | Finding]]


@dataclass(frozen=True)
class Layout:
    """A table that another tool writes: ``columns`` are those by which it is recognised.

    ``one_a_row``: every row becomes one judgement, or none.
    """

    name: str
    columns: frozenset[str]
    translate: Translate
    one_a_row: bool = True


def row_finding(file: str, number: int, reason: str, code: Code = "row_invalid") -> Finding:
    """What is wrong with one row; ``reason`` ends in what to do."""
    return Finding(code, "error", f"{file} row {number}: {reason}.", file, number)


def unlabelled(file: str, number: int) -> Finding:
    text = f"{file} row {number}: nobody said which image is preferred; the row is left out."
    return Finding("label_missing", "warning", text, file, number)


def truth(value: object) -> bool | None:
    """A yes or no of JSON, CSV or parquet; None for anything else."""
    text = str(value).strip().casefold()
    return True if text in ("true", "1", "1.0") else False if text in ("false", "0", "0.0") else None


def number_of(value: object) -> float | None:
    """A number of JSON, CSV or parquet; None for anything else, not-a-number included."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if found == found else None


def compared(
    file: str,
    number: int,
    first_preferred: bool | None,
    images: tuple[object, object],
    fields: Fields,
    *,
    search: Search = "path",
    folder: str = "",
) -> Judgement | Finding:
    """The judgement of two images in the order shown; ``first_preferred`` is None for a tie.

    Without both images there is nothing that was compared: one of them alone is no chosen image.
    """
    if any(image is None or not str(image).strip() for image in images):
        return row_finding(file, number, "one of its two images is missing; add it, or remove the row", "image_missing")
    chosen, rejected = images if first_preferred is not False else reversed(images)
    known = {"chosen": chosen, "rejected": rejected, **fields}
    return Judgement(number, known, tied=first_preferred is None, search=search, folder=folder)
