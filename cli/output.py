"""What commands print: tables and lines for people, JSON on request for programs; messages go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

WIDEST = 10_000  # characters of a table's line
console = Console()
messages = Console(stderr=True)


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """For people; for programs a row a line, its cells separated by tabs, without headings. No cell is ever cut."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        sys.stdout.writelines("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in cells)
        return
    table = Table(box=None, header_style="bold")
    for heading, column in zip(headings, zip(*cells, strict=True) if cells else [()] * len(headings), strict=True):
        table.add_column(heading, no_wrap=not any(" " in cell for cell in column))
    for row in cells:
        table.add_row(*map(escape, row))
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table)
    width = console.width if needed.minimum <= console.width else needed.maximum  # then the terminal breaks its lines
    Console(width=width).print(table, highlight=False)


def tell(text: str) -> None:
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
