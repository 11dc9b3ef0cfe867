"""Datasets: each change locks the dataset's row, adds one revision and rewrites none. Nothing here commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import ColumnElement, Select, Subquery, func, select, union, update
from sqlalchemy.orm import Session

from store import pagination
from store.errors import DatasetNotFound, PairNotFound, RevisionNotFound
from store.ids import new_id
from store.tables.dataset import Dataset, DatasetPair, DatasetRevision
from store.tables.image import ImageFacts

AT_ONCE = 500  # rows of a whole revision, or of a file, that are in memory together


@dataclass(frozen=True)
class NewPair:
    """Images by the SHA-256 of their blobs; ``file_id`` and ``file_row`` where the pair stood, if in a file."""

    prompt: str
    chosen_sha256: str
    rejected_sha256: str | None
    split: str | None = None
    weight: float | None = None
    annotator: str | None = None
    seed: int | None = None
    file_id: str | None = None
    file_row: int | None = None


def create(
    session: Session, project_id: str, name: str, metadata: dict[str, str] | None, pairs: Iterable[NewPair]
) -> Dataset:
    """Revision 1 holds ``pairs``, or is empty. They are taken as they come: there may be more than memory holds."""
    dataset = Dataset(
        id=new_id("ds"),
        project_id=project_id,
        name=name,
        dataset_metadata=dict(metadata) if metadata is not None else None,
        revision=0,
        pairs_count=0,
    )
    session.add(dataset)
    session.flush()
    session.refresh(dataset)
    added = _counted_out(_insert(session, dataset, pairs))
    _revise(session, dataset, f"created with {_counted(added)}", added=added)
    return dataset


def get(session: Session, project_id: str, dataset_id: str) -> Dataset:
    return _found(session.scalar(_one(project_id, dataset_id)), dataset_id)


def lock(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """The dataset, which nobody else changes until this transaction is over."""
    return _found(session.scalar(_one(project_id, dataset_id).with_for_update()), dataset_id)


def newest_first(session: Session, project_id: str, *, after: str | None, limit: int) -> list[Dataset]:
    """Up to ``limit`` datasets older than the dataset ``after``. Raises CursorUnknown."""
    query = select(Dataset).where(Dataset.project_id == project_id, Dataset.deleted_at.is_(None))
    if after is not None:
        pagination.position(
            session, select(Dataset.id).where(Dataset.id == after, Dataset.project_id == project_id), after
        )
        query = query.where(Dataset.id < after)
    return list(session.scalars(query.order_by(Dataset.id.desc()).limit(limit)))


def delete(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """Hide it from its owner; its rows stay for the jobs that were made of it."""
    dataset = lock(session, project_id, dataset_id)
    dataset.deleted_at = session.scalar(select(func.now()))
    return dataset


def add(session: Session, dataset: Dataset, pairs: Sequence[NewPair], what: str, *, images_bytes: int = 0) -> list[str]:
    """``dataset`` is locked. Returns the pairs' ids, in their order. ``images_bytes`` count for the project's quota
    until the dataset is deleted: earlier revisions keep what a later one has removed."""
    dataset.bytes += images_bytes
    ids = list(_insert(session, dataset, pairs))
    _revise(session, dataset, what, added=len(ids))
    return ids


def add_from_file(session: Session, dataset: Dataset, pairs: Iterable[NewPair], file_id: str) -> None:
    """``dataset`` is locked. The pairs are taken as they come: there may be more than memory holds."""
    added = _counted_out(_insert(session, dataset, pairs))
    _revise(session, dataset, f"{added} pairs added from {file_id}", added=added)


def remove(session: Session, dataset: Dataset, pair_id: str) -> DatasetPair:
    """``dataset`` is locked. The pair stays in the revisions before. Raises PairNotFound for one removed already."""
    pair = get_pair(session, dataset, pair_id)
    if pair.removed_in is not None:
        raise PairNotFound(pair_id)
    _revise(session, dataset, f"pair {pair.number} removed", added=-1)
    pair.removed_in = dataset.revision
    session.flush()
    return pair


def get_pair(session: Session, dataset: Dataset, pair_id: str) -> DatasetPair:
    """Of whatever revision."""
    query = select(DatasetPair).where(DatasetPair.id == pair_id, DatasetPair.dataset_id == dataset.id)
    pair = session.scalar(query)
    if pair is None:
        raise PairNotFound(pair_id)
    return pair


def pairs(session: Session, revision: DatasetRevision, *, after: str | None, limit: int) -> list[DatasetPair]:
    """Up to ``limit`` pairs of the revision that come after the pair ``after``, in the order of their adding.
    Raises CursorUnknown."""
    query = select(DatasetPair).where(_content(revision)).order_by(DatasetPair.number).limit(limit)
    if after is not None:
        of_this = (DatasetPair.id == after, DatasetPair.dataset_id == revision.dataset_id)
        number = pagination.position(session, select(DatasetPair.number).where(*of_this), after)
        query = query.where(DatasetPair.number > number)
    return list(session.scalars(query))


def all_pairs(session: Session, revision: DatasetRevision) -> Iterator[DatasetPair]:
    """In the order of their adding, without holding all of them."""
    query = select(DatasetPair).where(_content(revision)).order_by(DatasetPair.number)
    yield from session.scalars(query.execution_options(yield_per=AT_ONCE))


def images_count(session: Session, revision: DatasetRevision) -> int:
    """How many different images the revision has."""
    return session.scalars(select(func.count()).select_from(_images(revision))).one()


def unmeasured_images(session: Session, revision: DatasetRevision) -> list[str]:
    """The SHA-256 of each of its images of which store/datasets/image_facts.py knows nothing, in their order."""
    sha256 = _images(revision).c.sha256
    measured = select(ImageFacts.sha256).where(ImageFacts.sha256 == sha256).exists()
    return list(session.scalars(select(sha256).where(~measured).order_by(sha256)))


def revision(session: Session, dataset: Dataset, number: int | None) -> DatasetRevision:
    """The latest one without a ``number``."""
    wanted = dataset.revision if number is None else number
    found = session.get(DatasetRevision, (dataset.id, wanted)) if 0 < wanted < 2**63 else None
    if found is None:
        raise RevisionNotFound(f"{dataset.id}@{wanted}")
    return found


def revisions(session: Session, dataset: Dataset, *, before: int | None, limit: int) -> list[DatasetRevision]:
    """Up to ``limit`` revisions with a number below ``before``, newest first."""
    query = select(DatasetRevision).where(DatasetRevision.dataset_id == dataset.id)
    if before is not None:
        query = query.where(DatasetRevision.number < before)
    return list(session.scalars(query.order_by(DatasetRevision.number.desc()).limit(limit)))


def materialised(session: Session, revision: DatasetRevision, pairs_sha256: str) -> None:
    """Note that the list of the revision's pairs is a blob now. A repetition is harmless: the same pairs make the same
    bytes."""
    session.execute(
        update(DatasetRevision)
        .where(DatasetRevision.dataset_id == revision.dataset_id, DatasetRevision.number == revision.number)
        .values(pairs_sha256=pairs_sha256)
    )


def _revise(session: Session, dataset: Dataset, what: str, *, added: int) -> None:
    dataset.revision += 1
    dataset.pairs_count += added
    session.add(
        DatasetRevision(dataset_id=dataset.id, number=dataset.revision, what=what, pairs_count=dataset.pairs_count)
    )
    session.flush()


def _insert(session: Session, dataset: Dataset, pairs: Iterable[NewPair]) -> Iterator[str]:
    """Insert into the next revision, some at a time; yields the ids in order. Nothing happens until it is iterated."""
    highest = select(func.coalesce(func.max(DatasetPair.number), 0)).where(DatasetPair.dataset_id == dataset.id)
    numbered = enumerate(pairs, session.scalars(highest).one() + 1)
    whose = {"dataset_id": dataset.id, "added_in": dataset.revision + 1}
    while some := list(islice(numbered, AT_ONCE)):
        rows = [asdict(pair) | whose | {"id": new_id("pair"), "number": number} for number, pair in some]
        _copy(session, rows)
        yield from (row["id"] for row in rows)


def _copy(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """By COPY, which takes a third of the time of INSERT: meanwhile the dataset and a connection are occupied."""
    names = list(rows[0])
    statement = SQL("COPY dataset_pairs ({}) FROM STDIN").format(SQL(", ").join(map(Identifier, names)))
    driver: psycopg.Connection[Any] = session.connection().connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row([row[name] for name in names])


def _counted_out(inserted: Iterator[str]) -> int:
    return sum(1 for _ in inserted)


def _images(revision: DatasetRevision) -> Subquery:
    """One column, ``sha256``, without repetition."""
    chosen = select(DatasetPair.chosen_sha256.label("sha256")).where(_content(revision))
    rejected = select(DatasetPair.rejected_sha256).where(_content(revision), DatasetPair.rejected_sha256.is_not(None))
    return union(chosen, rejected).subquery()


def _content(revision: DatasetRevision) -> ColumnElement[bool]:
    present = DatasetPair.removed_in.is_(None) | (DatasetPair.removed_in > revision.number)
    return (DatasetPair.dataset_id == revision.dataset_id) & (DatasetPair.added_in <= revision.number) & present


def _counted(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _one(project_id: str, dataset_id: str) -> Select[Dataset]:
    owned: ColumnElement[bool] = (Dataset.id == dataset_id) & (Dataset.project_id == project_id)
    return select(Dataset).where(owned, Dataset.deleted_at.is_(None))


def _found(dataset: Dataset | None, dataset_id: str) -> Dataset:
    if dataset is None:
        raise DatasetNotFound(dataset_id)
    return dataset
