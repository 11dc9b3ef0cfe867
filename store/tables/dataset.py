"""The tables of datasets: pairs that come and go, and the revisions that this makes.

The content at revision r is the pairs with ``added_in <= r`` that were not removed by then. No revision is ever
rewritten, and a change costs rows for what it changes alone.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.base import Json, Table


class Dataset(Table):
    """``revision`` is the latest one and ``pairs_count`` its pairs; ``bytes`` are those of images that were sent with
    single pairs, as often as they were. Every change to a dataset holds this row's lock.

    A deleted one takes and shows nothing more; jobs that pinned a revision of it still find its rows.
    """

    __tablename__ = "datasets"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    dataset_metadata: Mapped[Json | None]
    revision: Mapped[int]
    pairs_count: Mapped[int]
    bytes: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class DatasetRevision(Table):
    """One change, and the state after it. ``pairs_sha256`` is the list of its pairs as a blob, once a job needed it."""

    __tablename__ = "dataset_revisions"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    what: Mapped[str]
    pairs_count: Mapped[int]
    pairs_sha256: Mapped[str | None]


class DatasetPair(Table):
    """``number`` counts the pairs that a dataset ever had: noise in training is keyed by it, so that a pair gets the
    same in every revision. ``file_id`` and ``file_row`` say where a pair of a file came from."""

    __tablename__ = "dataset_pairs"
    __table_args__ = (
        UniqueConstraint("dataset_id", "number"),
        Index("ix_dataset_pairs_file_id", "file_id", postgresql_where=text("file_id IS NOT NULL")),
        CheckConstraint("split IN ('train', 'validation')", name="split"),
        CheckConstraint("removed_in > added_in", name="removed_later"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    number: Mapped[int]
    prompt: Mapped[str]
    chosen_sha256: Mapped[str]
    rejected_sha256: Mapped[str | None]
    split: Mapped[str | None]
    weight: Mapped[float | None]
    annotator: Mapped[str | None]
    seed: Mapped[int | None]
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))
    file_row: Mapped[int | None]
    added_in: Mapped[int]
    removed_in: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
