"""The table of what was measured of images."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Table


class ImageFacts(Table):
    """What was measured of an image blob: it follows from the bytes, so that it holds wherever they are named."""

    __tablename__ = "image_facts"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int]
    height: Mapped[int]
    fingerprint: Mapped[bytes]
