"""What the uploader decides about doubtful rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ties = Literal["drop", "both", "error"]
InvalidRows = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Policy:
    """``ties``: pairs of which neither image was preferred are left out, kept in both orders, or errors.

    ``invalid_rows``: a row that cannot be used makes the upload unusable, or is left out with a warning; what is wrong
    with the archive itself stays an error. ``strict`` turns every warning into an error. ``prompt`` is for images that
    come without one: a folder of pictures of a subject.
    """

    ties: Ties = "drop"
    invalid_rows: InvalidRows = "refuse"
    strict: bool = False
    prompt: str | None = None
