"""Which blobs are needed: every column that names one, in one place, and by whom it is needed.

A blob stays if somebody can still download, show or start a job with, and what a job that has not ended needs. What its
owner deleted counts as named for the grace time after, so that a request that read the row before can end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, column, exists, func, select, true, union_all
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.job_status import TERMINAL
from store.tables.dataset import Dataset, DatasetPair, DatasetRevision
from store.tables.file import File
from store.tables.generation import Generation
from store.tables.image import ImageFacts
from store.tables.job import Checkpoint, Job
from store.tables.project import ApiKey
from store.tables.upload import UploadPart

# A list of pairs is itself a blob, whose lines name images: see ``documents``.
DOCUMENTS = (File.pairs_sha256, DatasetRevision.pairs_sha256)
NAMING: tuple[InstrumentedAttribute[Any], ...] = (
    File.sha256,
    *DOCUMENTS,
    DatasetPair.chosen_sha256,
    DatasetPair.rejected_sha256,
)
# Checkpoint.manifest names others (file name -> {"sha256", "bytes"}), and so do Generation.result and .weights.

# Digests of something else: a key's secret, a request's body, a part under uploads/, what is known of an image whether
# or not it is there.
NOT_NAMING = (ApiKey.sha256, Job.request_sha256, Generation.request_sha256, UploadPart.sha256, ImageFacts.sha256)


def named(session: Session, sha256s: Collection[str], *, grace_seconds: float) -> set[str]:
    """Those of the digests that rows name. Images of lists of pairs are not among them."""
    rows = union_all(*_rows(grace_seconds)).subquery()
    return set(session.scalars(select(rows.c.sha256).where(rows.c.sha256.in_(sha256s))))


def all_named(session: Session, *, grace_seconds: float) -> set[str]:
    """As ``named``, of all digests there are."""
    rows = union_all(*_rows(grace_seconds)).subquery()
    return set(session.scalars(select(rows.c.sha256).where(rows.c.sha256.is_not(None))))


def documents(session: Session, *, grace_seconds: float) -> set[str]:
    """The lists of pairs that are still needed."""
    lists = union_all(*(_select(of, grace_seconds) for of in DOCUMENTS)).subquery()
    return set(session.scalars(select(lists.c.sha256).where(lists.c.sha256.is_not(None))))


def _rows(grace_seconds: float) -> list[Select[Any]]:
    files = func.jsonb_each(Checkpoint.manifest).table_valued(column("key", Text), column("value", JSONB))
    of_checkpoints = select(files.c.value["sha256"].astext.label("sha256")).select_from(Checkpoint).join(files, true())
    return [*(_select(of, grace_seconds) for of in NAMING), of_checkpoints, *_of_generations(grace_seconds)]


def _of_generations(grace_seconds: float) -> list[Select[Any]]:
    """Images that were generated, and the adapters that they are generated with."""
    needed = _not_long_deleted(Generation.deleted_at, grace_seconds)
    images = func.jsonb_array_elements(Generation.result["images"]).table_valued(column("value", JSONB))
    weights = func.jsonb_each_text(Generation.weights).table_valued(column("key", Text), column("value", Text))
    return [
        select(value.label("sha256")).select_from(Generation).join(names, true()).where(needed)
        for names, value in ((images, images.c.value["sha256"].astext), (weights, weights.c.value))
    ]


def _select(of: InstrumentedAttribute[Any], grace_seconds: float) -> Select[Any]:
    return select(of.label("sha256")).where(NEEDED[of.class_.__tablename__](grace_seconds))


def _file_needed(grace_seconds: float) -> ColumnElement[bool]:
    needed = exists().where((Job.training_file_id == File.id) | (Job.validation_file_id == File.id), _live())
    return _not_long_deleted(File.deleted_at, grace_seconds) | needed


def _revision_needed(grace_seconds: float) -> ColumnElement[bool]:
    return _dataset_needed(DatasetRevision.dataset_id, grace_seconds)


def _pair_needed(grace_seconds: float) -> ColumnElement[bool]:
    """A pair that was removed stands in the revisions before."""
    return _dataset_needed(DatasetPair.dataset_id, grace_seconds)


def _dataset_needed(dataset_id: InstrumentedAttribute[str], grace_seconds: float) -> ColumnElement[bool]:
    there = exists().where(Dataset.id == dataset_id, _not_long_deleted(Dataset.deleted_at, grace_seconds))
    pinned = (Job.training_dataset_id == dataset_id) | (Job.validation_dataset_id == dataset_id)
    return there | exists().where(pinned, _live())


def _not_long_deleted(deleted_at: InstrumentedAttribute[Any], grace_seconds: float) -> ColumnElement[bool]:
    return deleted_at.is_(None) | (deleted_at > func.now() - timedelta(seconds=grace_seconds))


def _live() -> ColumnElement[bool]:
    return Job.status.not_in([str(status) for status in TERMINAL])


NEEDED: dict[str, Callable[[float], ColumnElement[bool]]] = {
    File.__tablename__: _file_needed,
    DatasetRevision.__tablename__: _revision_needed,
    DatasetPair.__tablename__: _pair_needed,
}
