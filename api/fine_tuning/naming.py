"""The adapter's file name in ComfyUI's and kohya's format: they list files by name, so the name is descriptive."""

from __future__ import annotations

import re
import unicodedata

from trainer.spec.methods import Method
from trainer.spec.run import RESERVED_NAMES

LONGEST = 64
TAIL = 8  # characters of the job's id, from its random end


def adapter_name(suffix: str | None, method: Method, job_id: str) -> str:
    """The suffix as far as plain ASCII can spell it, otherwise the method and the end of the job's id."""
    given = _plain(suffix or "")
    return given if given and given not in RESERVED_NAMES else f"{method.type}-{job_id[-TAIL:]}"


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", letters).lstrip("-._")[:LONGEST].rstrip("-._")
