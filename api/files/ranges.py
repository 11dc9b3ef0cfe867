"""Which bytes of a file a GET requests, and whether the client has them already (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from api.errors.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """``length`` bytes from ``start``."""

    start: int
    length: int


def etag(sha256: str) -> str:
    return f'"{sha256}"'


def etag_matches(tag: str, if_none_match: str | None) -> bool:
    """Whether If-None-Match names the tag; compared weakly, as the RFC requires here."""
    if if_none_match is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return tag in tags or "*" in tags


def requested_span(range_header: str | None, if_range: str | None, *, tag: str, size: int) -> Span | None:
    """None means the whole file: no range, several of them, one we cannot read, or one of another version."""
    match = _RANGE.fullmatch(range_header.strip()) if range_header else None
    if match is None or (if_range is not None and if_range.strip() != tag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        return _suffix(int(last), size)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return Span(start, end - start + 1)


def _suffix(length: int, size: int) -> Span:
    if length == 0 or size == 0:
        raise RangeNotSatisfiable(size)
    start = max(0, size - length)
    return Span(start, size - start)
