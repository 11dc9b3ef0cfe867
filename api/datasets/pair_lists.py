"""A dataset's pairs in intake's form, and the stored list from which a job's run directory is made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from sqlalchemy.orm import Session

from intake import PreparedPair, Split
from store.blobs.blobs import Blobs
from store.datasets import datasets
from store.tables.dataset import DatasetPair, DatasetRevision

SPLITS: dict[str | None, Split] = {split: split for split in get_args(Split)}


def intake_pair(pair: DatasetPair) -> PreparedPair:
    """As intake makes it of a row; its number in the dataset stands for the row."""
    return PreparedPair(
        row=pair.number,
        prompt=pair.prompt,
        chosen=pair.chosen_sha256,
        rejected=pair.rejected_sha256,
        split=SPLITS.get(pair.split),
        weight=pair.weight,
        annotator=pair.annotator,
        seed=pair.seed,
    )


def materialise(session: Session, blobs: Blobs, revision: DatasetRevision) -> None:
    """Store the list of the revision's pairs as a blob, unless it is there: as worker/intake does for a file.

    The rows are the truth: a list that was lost from storage is made again, with the same bytes.
    """
    if revision.pairs_sha256 is not None and blobs.exists(revision.pairs_sha256):
        return
    with tempfile.NamedTemporaryFile() as listed:
        for pair in datasets.all_pairs(session, revision):
            listed.write(json.dumps(vars(intake_pair(pair))).encode() + b"\n")
        listed.flush()
        blob = blobs.put_file(Path(listed.name))
    datasets.materialised(session, revision, blob.sha256)


def pairs_of(blobs: Blobs, pairs_sha256: str) -> Iterator[PreparedPair]:
    """The other way round, of the list that intake made of a file, one at a time."""
    for line in _lines(blobs.stream(pairs_sha256)):
        yield PreparedPair(**json.loads(line))


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each line ends with a line feed, the last one too."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
