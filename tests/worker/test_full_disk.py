"""A disk that is full when a checkpoint or an artifact is to be written, at the trainer and at the blob store."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from store.blobs.blobs import Blobs, StoredBlob
from store.tables.job import Checkpoint, Job
from tests.api.test_full_disk import small_filesystem
from tests.faults.checker import violations
from tests.store.rows import read_events, read_job
from tests.worker.conftest import NewJob, Supervised
from tests.worker.watching import first_checkpoint, resumed_from
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration
FILLER = "filler"


def fill(disk: Path) -> None:
    with (disk / FILLER).open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the end that the loop is for


def empty(disk: Path) -> None:
    (disk / FILLER).unlink()


class Filling(Blobs):
    """Real blobs on a real disk, which somebody else fills at a chosen moment."""

    def __init__(self, url: str, disk: Path, before: Callable[[Path], bool]) -> None:
        super().__init__(url)
        self._disk, self._before = disk, before
        self.filled = False

    def put_file(self, path: Path) -> StoredBlob:
        if not self.filled and self._before(path):
            fill(self._disk)
            self.filled = True
        return super().put_file(path)


def in_second_checkpoint(path: Path) -> bool:
    return "step-00000006" in path.parts


def in_output(path: Path) -> bool:
    return "output" in path.parts


def check_blobs(disk: Path) -> None:
    """Whatever can be seen is whole."""
    for path in (disk / "blobs" / "sha256").glob("*/" + "?" * 64):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def checkpoints(resources: Resources, job_id: str) -> list[Checkpoint]:
    with resources.sessions() as session:
        return list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)))


def check_finished(resources: Resources, job_id: str) -> Job:
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.attempt) == ("succeeded", 2)
    with resources.sessions() as session:
        assert violations(session, all_ended=True, of=[job_id]) == []
    return job


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_filesystem(tmp_path / "disk"):
        yield tmp_path / "disk"


@pytest.mark.parametrize(("moment", "visible"), [(in_second_checkpoint, [3]), (in_output, [3, 6])])
def test_a_blob_store_that_fills_up_shows_nothing_half_and_the_job_goes_on_when_there_is_space(
    resources: Resources, new_job: NewJob, disk: Path, moment: Callable[[Path], bool], visible: list[int]
) -> None:
    blobs = Filling(f"file://{disk}/blobs", disk, moment)
    job_id = new_job()
    copy(resources.blobs, disk)
    cramped = replace(resources, blobs=blobs)
    supervise(cramped, job_id, stopping=lambda: False)
    assert blobs.filled
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.crashes, job.result_files) == ("queued", 1, [])
    last = read_events(resources.sessions, job_id)[-1]
    assert (last.data or {})["code"] == "storage_fault"
    assert "No space left on device" in last.message
    assert [checkpoint.step for checkpoint in checkpoints(resources, job_id)] == visible
    check_blobs(disk)
    empty(disk)
    supervise(cramped, job_id, stopping=lambda: False)
    check_finished(resources, job_id)
    assert resumed_from(resources.sessions, job_id) == [0, visible[-1]]
    check_blobs(disk)


def copy(blobs: Blobs, disk: Path) -> None:
    """What the job is made of: intake has written it before the disk was small."""
    source = getattr(blobs.store, "prefix", None)
    assert source is not None
    for path in Path(source).rglob("*"):
        if path.is_file():
            target = disk / "blobs" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def test_a_worker_whose_disk_fills_up_says_so_and_the_job_goes_on_from_its_checkpoint_elsewhere(
    resources: Resources, new_job: NewJob, disk: Path
) -> None:
    settings = resources.settings.model_copy(update={"home": disk, "min_free_bytes": 0})
    worker = Supervised(replace(resources, settings=settings))
    job_id = new_job(steps=150, every=10)
    ended = worker.run(job_id)
    step = first_checkpoint(resources.sessions, job_id)
    fill(disk)
    ended.result()
    worker.close()
    job = read_job(resources.sessions, job_id)
    assert (job.status, job.crashes, job.error) == ("queued", 1, None)
    last = read_events(resources.sessions, job_id)[-1]
    assert (last.data or {})["code"] in ("disk_full", "storage_fault"), last.message
    visible = checkpoints(resources, job_id)
    for one in visible:
        for entry in one.manifest.values():
            assert hashlib.sha256(resources.blobs.read(entry["sha256"])).hexdigest() == entry["sha256"]
    supervise(resources, job_id, stopping=lambda: False)
    check_finished(resources, job_id)
    assert resumed_from(resources.sessions, job_id) == [0, visible[-1].step]
    assert visible[-1].step >= step
