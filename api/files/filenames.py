"""Client file names: cleaned when they come, quoted when they leave. They are never a path on our side."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

LONGEST = 255  # bytes, what common file systems take
UNNAMED = "upload"


def clean(given: str) -> str:
    """The last part of a name with either separator, without control characters (CR, LF, NUL, bidi marks)."""
    last = given.replace("\\", "/").rpartition("/")[2]
    printable = "".join(char for char in last if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    short = printable.strip().encode()[:LONGEST].decode(errors="ignore")
    return UNNAMED if short in ("", ".", "..") else short


def attachment(name: str) -> str:
    """A content-disposition for download: an ASCII fallback and the exact name (RFC 6266, RFC 8187)."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
