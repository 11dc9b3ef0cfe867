"""What was measured of images, by their SHA-256. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables.image import ImageFacts

DIGESTS_PER_QUERY = 5000


@dataclass(frozen=True)
class MeasuredImage:
    """``width`` and ``height`` in pixels."""

    sha256: str
    width: int
    height: int
    fingerprint: bytes


def save(session: Session, measured: Iterable[MeasuredImage]) -> None:
    """Insert what is not stored yet: the same bytes measure the same."""
    rows = [asdict(facts) for facts in sorted(set(measured), key=lambda facts: facts.sha256)]  # one order: no deadlock
    if rows:
        session.execute(insert(ImageFacts).on_conflict_do_nothing(), rows)


def find(session: Session, sha256s: Collection[str]) -> dict[str, MeasuredImage]:
    """The facts of those of ``sha256s`` that were measured, by SHA-256."""
    table = ImageFacts
    columns = (table.sha256, table.width, table.height, table.fingerprint)
    return {
        row.sha256: MeasuredImage(*row)
        for some in _batches(sha256s)
        for row in session.execute(select(*columns).where(table.sha256.in_(some)))
    }


def delete_facts(session: Session, sha256s: Sequence[str]) -> None:
    session.execute(delete(ImageFacts).where(ImageFacts.sha256.in_(sha256s)))


def _batches(sha256s: Collection[str]) -> Iterator[list[str]]:
    left = iter(sha256s)
    while some := list(islice(left, DIGESTS_PER_QUERY)):
        yield some
