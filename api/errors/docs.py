"""``python -m api.errors.docs`` writes docs/reference/errors.md's table of error codes; a test compares."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from api.errors.table import ROWS, ErrorRow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "errors.md"
BEGIN, END = "<!-- codes: python -m api.errors.docs -->\n", "<!-- end of codes -->\n"


def table() -> str:
    """One line a status and code, with every reason for it."""
    reasons: dict[tuple[int, str, str], dict[str, None]] = {}  # ordered and distinct
    for row in ROWS:
        reasons.setdefault((row.status, row.code, _again(row)), {})[_reason(row)] = None
    lines = [
        f"| {status} | `{code}` | {again} | {' '.join(found)} |" for (status, code, again), found in reasons.items()
    ]
    return "\n".join(["| status | code | send it again? | reason |", "|---|---|---|---|", *lines, ""])


def with_table(page: str) -> str:
    """The page, with the present table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _reason(row: ErrorRow) -> str:
    reason = row.message or (inspect.getdoc(type(row.sample)) or "").partition("\n")[0]
    return reason if row.hint is None else f"{reason} {row.hint}."


def _again(row: ErrorRow) -> str:
    """What the openai SDK does by itself."""
    headers = row.headers_of(row.sample)
    if "retry-after" in headers:
        return "after `Retry-After`"
    repeats = row.status in (408, 409, 429) or row.status >= 500
    return "yes" if repeats and "x-should-retry" not in headers else "no"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.exit(f"{PAGE} lacks the marker {BEGIN.strip()} or {END.strip()}")
    PAGE.write_text(with_table(text), encoding="utf-8")
