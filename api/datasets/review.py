"""The review of a revision: every pair through intake's, with what was measured of its images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from time import monotonic

from sqlalchemy.orm import Session

from api.datasets.pair_images import measured
from api.datasets.pair_lists import intake_pair
from api.datasets.request import LIMITS
from api.dependencies import Dependencies
from api.errors.errors import ReportNotReady
from api.http.transactions import transaction
from intake import Finding, Policy, Report
from intake.findings import FindingList
from intake.images.image_folder import StoredImage
from intake.review import Review, ReviewedPair
from store.database import Sessions
from store.datasets import datasets, image_facts
from store.datasets.image_facts import MeasuredImage
from store.tables.dataset import DatasetPair, DatasetRevision

# Images of files that were read before intake stored its measures are measured here, for so long in one request.
MEASURING_SECONDS = 20.0
STORED_AT_ONCE = 100


def facts_of(image: StoredImage) -> MeasuredImage:
    return MeasuredImage(image.sha256, image.width, image.height, image.fingerprint)


def warnings(pair: DatasetPair, chosen: StoredImage, rejected: StoredImage | None) -> list[Finding]:
    """What a pair shows by itself."""
    review = Review(pair.dataset_id)
    found = [*review.add(_reviewed(pair, chosen, rejected)), *review.conclude()]
    for column, image in (("chosen", chosen), ("rejected", rejected)):
        if image is not None and image.profile_ignored:
            text = f"{column} has a colour profile that cannot be applied and was taken as sRGB; check its colours."
            found.append(Finding("image_profile", "warning", text, pair.dataset_id, pair.number))
    return found


def measure_missing(dependencies: Dependencies, revision: DatasetRevision) -> None:
    """Measure the images of the revision that were not, and store the measures.

    Raises ReportNotReady when there are more than one request has time for.
    """
    with transaction(dependencies) as work:
        missing = datasets.unmeasured_images(work.session, revision)
        count = datasets.images_count(work.session, revision) if missing else 0
    ends = monotonic() + MEASURING_SECONDS
    done: list[MeasuredImage] = []
    for index, sha256 in enumerate(missing):
        if monotonic() > ends:
            _store(dependencies.sessions, done)
            raise ReportNotReady(revision.dataset_id, count - len(missing) + index, count)
        done.append(facts_of(measured(dependencies.blobs, sha256)))
        if len(done) == STORED_AT_ONCE:
            _store(dependencies.sessions, done)
            done = []
    _store(dependencies.sessions, done)


def review(dependencies: Dependencies, revision: DatasetRevision) -> Report:
    """Its images are measured."""
    reviewed_all = Review(revision.dataset_id)
    findings = FindingList(LIMITS.findings, Policy())
    with transaction(dependencies) as work:
        for reviewed in with_images(work.session, revision):
            findings.extend(list(reviewed_all.add(reviewed)))
    findings.extend(list(reviewed_all.conclude()))
    count = revision.pairs_count
    return Report(
        format="dataset", rows=count, kept=count, dropped={}, figures=reviewed_all.figures(), findings=tuple(findings)
    )


def with_images(session: Session, revision: DatasetRevision) -> Iterator[ReviewedPair]:
    """Each pair with the measures of its images, which are read for some pairs at a time."""
    pairs = datasets.all_pairs(session, revision)
    while some := list(islice(pairs, datasets.AT_ONCE)):
        named = {sha256 for pair in some for sha256 in (pair.chosen_sha256, pair.rejected_sha256) if sha256 is not None}
        measured_images = {sha256: _image(facts) for sha256, facts in image_facts.find(session, named).items()}
        for pair in some:
            rejected = measured_images[pair.rejected_sha256] if pair.rejected_sha256 is not None else None
            yield _reviewed(pair, measured_images[pair.chosen_sha256], rejected)


def _reviewed(pair: DatasetPair, chosen: StoredImage, rejected: StoredImage | None) -> ReviewedPair:
    return ReviewedPair(intake_pair(pair), chosen, rejected)


def _image(facts: MeasuredImage) -> StoredImage:
    return StoredImage(facts.sha256, facts.width, facts.height, facts.fingerprint, profile_ignored=False)


def _store(sessions: Sessions, done: list[MeasuredImage]) -> None:
    with sessions.begin() as session:
        image_facts.save(session, done)
