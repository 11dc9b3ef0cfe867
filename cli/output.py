"""What commands print: tables and lines for people, JSON on request for programs; messages go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

console = Console()
messages = Console(stderr=True)


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """For people; in a pipe a row a line, its cells separated by tabs, without headings.

    No cell is cut or folded, because ids are copied from it: a terminal that is too narrow breaks the lines itself.
    """
    cells = [["" if cell is None else " ".join(str(cell).split()) for cell in row] for row in rows]
    if not console.is_terminal:
        sys.stdout.writelines("\t".join(row) + "\n" for row in cells)
        return
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    for row, style in [(headings, "bold"), *((row, "") for row in cells)]:
        line = "  ".join(map(set_cell_size, row, widths)).rstrip()
        console.print(Text(line, style), soft_wrap=True)


def answer(document: object, text: str, as_json: bool) -> None:
    """The document for programs, the text for people."""
    if as_json:
        print_json(document)
    else:
        notify(text)


def notify(text: str) -> None:
    """The answer, in lines as long as they are: what is copied from them has no breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """To people, so that stdout stays what a program reads."""
    messages.print(text, markup=False, highlight=False, soft_wrap=True)


def moment(seconds: Any) -> str | None:
    """Unix seconds as local time."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
