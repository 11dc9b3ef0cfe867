"""Datasets: revisions that never change, alone and when several writers come at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.database import Sessions
from store.datasets import datasets, image_facts
from store.datasets.datasets import NewPair
from store.datasets.image_facts import MeasuredImage
from store.errors import CursorUnknown, DatasetNotFound, PairNotFound, RevisionNotFound
from store.jobs import jobs
from store.jobs.jobs import NewJob
from store.tables.dataset import Dataset, DatasetPair
from tests.conftest import make_tenant
from tests.store.rows import SPEC, add_file, read_job

pytestmark = pytest.mark.integration


def pair(name: str) -> NewPair:
    return NewPair(name, f"{name}-chosen", f"{name}-rejected")


def begin(sessions: Sessions, project_id: str, *names: str) -> str:
    with sessions.begin() as session:
        return datasets.create(session, project_id, "foxes", None, [pair(name) for name in names]).id


def add(sessions: Sessions, project_id: str, dataset_id: str, *names: str) -> list[str]:
    with sessions.begin() as session:
        dataset = datasets.lock(session, project_id, dataset_id)
        return datasets.add(session, dataset, [pair(name) for name in names], f"{len(names)} added")


def remove(sessions: Sessions, project_id: str, dataset_id: str, pair_id: str) -> None:
    with sessions.begin() as session:
        datasets.remove(session, datasets.lock(session, project_id, dataset_id), pair_id)


def at(session: Session, project_id: str, dataset_id: str, number: int | None = None) -> list[DatasetPair]:
    revision = datasets.revision(session, datasets.get(session, project_id, dataset_id), number)
    found = list(datasets.all_pairs(session, revision))
    assert revision.pairs_count == len(found)
    images = {s for p in found for s in (p.chosen_sha256, p.rejected_sha256)}
    assert datasets.images_count(session, revision) == len(images)
    assert set(datasets.unmeasured_images(session, revision)) == images
    return found


def prompts(sessions: Sessions, project_id: str, dataset_id: str, number: int | None = None) -> list[str]:
    with sessions() as session:
        return [pair.prompt for pair in at(session, project_id, dataset_id, number)]


def test_every_change_makes_a_revision_and_none_changes_the_ones_before(sessions: Sessions, project_id: str) -> None:
    dataset_id = begin(sessions, project_id, "a", "b")
    c, _ = add(sessions, project_id, dataset_id, "c", "d")
    remove(sessions, project_id, dataset_id, c)
    add(sessions, project_id, dataset_id, "e")
    expected = {1: ["a", "b"], 2: ["a", "b", "c", "d"], 3: ["a", "b", "d"], 4: ["a", "b", "d", "e"]}
    for number, names in expected.items():
        assert prompts(sessions, project_id, dataset_id, number) == names
    assert prompts(sessions, project_id, dataset_id) == expected[4]
    with sessions() as session:
        dataset = datasets.get(session, project_id, dataset_id)
        assert (dataset.revision, dataset.pairs_count) == (4, 4)
        reported = datasets.revisions(session, dataset, before=4, limit=2)
        assert [(one.number, one.what) for one in reported] == [(3, "pair 3 removed"), (2, "2 added")]
        assert [one.number for one in at(session, project_id, dataset_id)] == [1, 2, 4, 5]  # never given twice


def test_an_empty_data_set_has_a_first_revision(sessions: Sessions, project_id: str) -> None:
    assert prompts(sessions, project_id, begin(sessions, project_id), 1) == []


@pytest.mark.parametrize("number", [0, -1, 2, 2**63, 2**80])
def test_a_revision_that_never_was_is_not_found(sessions: Sessions, project_id: str, number: int) -> None:
    dataset_id = begin(sessions, project_id)
    with pytest.raises(RevisionNotFound, match=f"{dataset_id}@{number}"):
        prompts(sessions, project_id, dataset_id, number)


def test_a_pair_is_removed_once_and_stays_readable(sessions: Sessions, project_id: str) -> None:
    dataset_id = begin(sessions, project_id)
    [pair_id] = add(sessions, project_id, dataset_id, "a")
    remove(sessions, project_id, dataset_id, pair_id)
    with pytest.raises(PairNotFound):
        remove(sessions, project_id, dataset_id, pair_id)
    with sessions() as session:
        dataset = datasets.get(session, project_id, dataset_id)
        assert (datasets.get_pair(session, dataset, pair_id).removed_in, dataset.revision) == (3, 3)


def test_a_pair_of_another_data_set_is_not_found(sessions: Sessions, project_id: str) -> None:
    first, second = begin(sessions, project_id), begin(sessions, project_id)
    [pair_id] = add(sessions, project_id, first, "a")
    with pytest.raises(PairNotFound):
        remove(sessions, project_id, second, pair_id)


def test_pairs_are_paged_within_their_revision(sessions: Sessions, project_id: str) -> None:
    dataset_id = begin(sessions, project_id)
    ids = add(sessions, project_id, dataset_id, *"abcdef")
    remove(sessions, project_id, dataset_id, ids[2])
    with sessions() as session:
        dataset = datasets.get(session, project_id, dataset_id)
        old, new = (datasets.revision(session, dataset, number) for number in (2, 3))
        pages = [datasets.pairs(session, one, after=ids[0], limit=3) for one in (old, new)]
        assert [[pair.prompt for pair in page] for page in pages] == [["b", "c", "d"], ["b", "d", "e"]]
        # A pair that is gone is still a place to go on from.
        assert [pair.prompt for pair in datasets.pairs(session, new, after=ids[2], limit=9)] == ["d", "e", "f"]


def test_another_projects_and_a_deleted_data_set_do_not_exist(sessions: Sessions, project_id: str) -> None:
    dataset_id = begin(sessions, project_id)
    with pytest.raises(DatasetNotFound):
        add(sessions, "proj-other", dataset_id, "a")
    with sessions.begin() as session:
        datasets.delete(session, project_id, dataset_id)
    for action in (datasets.get, datasets.lock, datasets.delete):
        with sessions.begin() as session, pytest.raises(DatasetNotFound):
            action(session, project_id, dataset_id)
    with sessions() as session:
        assert datasets.newest_first(session, project_id, after=None, limit=9) == []


def test_writers_that_meet_make_one_revision_each_and_lose_nothing(sessions: Sessions, project_id: str) -> None:
    dataset_id = begin(sessions, project_id)
    doomed = add(sessions, project_id, dataset_id, *(f"doomed {n}" for n in range(8)))
    start = threading.Barrier(4)

    def adds(writer: int) -> None:
        start.wait()
        for turn in range(8):
            add(sessions, project_id, dataset_id, f"{writer}.{turn}a", f"{writer}.{turn}b")

    def removes(mine: list[str]) -> None:
        start.wait()
        for pair_id in mine:
            remove(sessions, project_id, dataset_id, pair_id)

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(adds, writer) for writer in range(2)]
        work += [pool.submit(removes, doomed[:4]), pool.submit(removes, doomed[4:])]
        for one in work:
            one.result()
    with sessions() as session:
        dataset = session.get_one(Dataset, dataset_id)
        assert (dataset.revision, dataset.pairs_count) == (2 + 16 + 8, 32)
        contents = [
            {pair.number: pair.id for pair in at(session, project_id, dataset_id, number)}
            for number in range(1, dataset.revision + 1)
        ]
    changes = [len(after.items() ^ before.items()) for before, after in pairwise(contents)]
    assert sorted(changes) == [1] * 8 + [2] * 16 + [8]


def test_a_job_keeps_its_pinned_revision_when_the_data_set_changes_and_is_deleted(
    sessions: Sessions, project_id: str
) -> None:
    dataset_id = begin(sessions, project_id, "a")
    file = add_file(sessions, project_id)
    with sessions.begin() as session:
        revision = datasets.revision(session, datasets.get(session, project_id, dataset_id), None)
        datasets.materialised(session, revision, "digest of 1")
        job = jobs.create(session, NewJob(project_id, SPEC, revision, file))
        assert job.status == "queued"
    add(sessions, project_id, dataset_id, "b")
    with sessions.begin() as session:
        datasets.delete(session, project_id, dataset_id)
    kept = read_job(sessions, job.id)
    assert (kept.training_dataset_id, kept.training_revision) == (dataset_id, 1)
    assert (kept.training_file_id, kept.validation_file_id, kept.validation_dataset_id) == (None, file.id, None)
    with sessions() as session:
        assert jobs.pairs_documents(session, kept) == ("digest of 1", None)


def test_a_job_waits_for_a_file_next_to_a_dataset(sessions: Sessions, project_id: str) -> None:
    dataset_id, unread = begin(sessions, project_id, "a"), add_file(sessions, project_id, status="uploaded")
    with sessions.begin() as session:
        revision = datasets.revision(session, datasets.get(session, project_id, dataset_id), None)
        assert jobs.create(session, NewJob(project_id, SPEC, revision, unread)).status == "validating_files"


def test_a_job_without_pairs_or_with_two_sources_cannot_be_stored(sessions: Sessions, project_id: str) -> None:
    dataset_id, file = begin(sessions, project_id, "a"), add_file(sessions, project_id)
    with sessions() as session:
        job = jobs.create(session, NewJob(project_id, SPEC, file, None))
        session.commit()
        job.training_dataset_id, job.training_revision = dataset_id, 1
        with pytest.raises(IntegrityError, match="training_source"):
            session.flush()
        session.rollback()
        job.training_file_id = None
        with pytest.raises(IntegrityError, match="training_source"):
            session.flush()


def test_image_facts_are_stored_once_whoever_measures(sessions: Sessions) -> None:
    facts = [MeasuredImage(f"image {n}", n + 1, 2, bytes([n])) for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        tries = [pool.submit(_keep, sessions, part) for part in (facts, facts[::-1], facts[5:], facts[:15]) * 5]
        for one in tries:
            one.result()
    with sessions() as session:
        requested = ["image 3", "image 4", "unknown"]
        assert image_facts.find(session, requested) == {facts[3].sha256: facts[3], facts[4].sha256: facts[4]}


def _keep(sessions: Sessions, facts: list[MeasuredImage]) -> None:
    with sessions.begin() as session:
        image_facts.save(session, facts)


def test_the_pairs_of_a_file_are_one_revision_that_names_it(sessions: Sessions, project_id: str) -> None:
    dataset_id, file_id = begin(sessions, project_id, "a"), add_file(sessions, project_id).id
    count = 2 * datasets.AT_ONCE + 1
    with sessions.begin() as session:
        dataset = datasets.lock(session, project_id, dataset_id)
        pairs = (replace(pair(f"{row}"), file_id=file_id, file_row=row) for row in range(count))
        datasets.add_from_file(session, dataset, pairs, file_id)
    with sessions() as session:
        dataset = datasets.get(session, project_id, dataset_id)
        assert (dataset.revision, dataset.pairs_count) == (2, count + 1)
        [reported] = datasets.revisions(session, dataset, before=None, limit=1)
        assert (reported.what, reported.pairs_count) == (f"{count} pairs added from {file_id}", count + 1)
        stored = at(session, project_id, dataset_id)
    assert [one.prompt for one in stored] == ["a", *(f"{row}" for row in range(count))]
    assert [(one.number, one.file_id, one.file_row, one.added_in) for one in stored[-1:]] == [
        (count + 1, file_id, count - 1, 2)
    ]


def test_data_sets_are_listed_page_by_page(sessions: Sessions, project_id: str) -> None:
    made = [begin(sessions, project_id) for _ in range(5)][::-1]
    strangers = begin(sessions, make_tenant(sessions, "second").id)
    with sessions.begin() as session:
        datasets.delete(session, project_id, made[1])
        pages = [datasets.newest_first(session, project_id, after=after, limit=2) for after in (None, made[2], made[1])]
        assert [[one.id for one in page] for page in pages] == [[made[0], made[2]], made[3:], made[2:4]]
        for unknown in (strangers, "ds-none"):
            with pytest.raises(CursorUnknown, match=unknown):
                datasets.newest_first(session, project_id, after=unknown, limit=2)
