"""Intake workers that are killed, stopped, cut off or short of memory: a file is read, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from PIL import Image
from sqlalchemy import Engine

from cli.local.stack import READERS
from store.tables.file import File
from tests.api.polling import until
from tests.faults.proxy import Proxy, in_front_of
from tests.intake.build import encoded, good_files, jsonl, zip_of
from tests.store.rows import add_job, read_events, read_job
from tests.worker.celery_worker import StartWorker
from tests.worker.conftest import reread, upload
from tests.worker.watching import attempts_left, found
from worker.dispatcher.dispatcher import tick
from worker.intake.file_intake import read_file
from worker.resources import Resources
from worker.runtime import attempt_directories

pytestmark = pytest.mark.integration
SIDE, PAIRS = 3000, 50
LARGE = {"a.png": "red", "b.png": "blue"}  # 196 MB each, decoded


@pytest.fixture(scope="module")
def large() -> bytes:
    """A small archive that takes seconds to read: two pictures under many names, each of which is decoded."""
    names = [(f"{n}-a.png", f"{n}-b.png") for n in range(PAIRS)]
    rows = [{"prompt": f"prompt {n}", "chosen": chosen, "rejected": other} for n, (chosen, other) in enumerate(names)]
    pictures = [encoded(Image.new("RGB", (SIDE, SIDE), colour)) for colour in ("red", "blue")]
    images = [(name, pictures[side]) for pair in names for side, name in enumerate(pair)]
    return zip_of([("metadata.jsonl", jsonl(*rows)), *images])


@pytest.fixture
def proxied(engine: Engine) -> Iterator[tuple[Proxy, str]]:
    with in_front_of(engine.url.render_as_string(hide_password=False)) as proxied:
        yield proxied


def is_read(resources: Resources, file: File) -> bool:
    return reread(resources, file).lease_expires_at is not None


def has_crashed(resources: Resources, file: File, times: int) -> Callable[[], bool]:
    """A tick of the dispatcher found work, and the file's reader has ended so many times."""
    return lambda: bool(tick(resources)) and reread(resources, file).crashes == times


def has(resources: Resources, file: File, status: str) -> Callable[[], bool]:
    """The dispatcher is at work meanwhile."""

    def holds() -> bool:
        tick(resources)
        return reread(resources, file).status == status

    return holds


def began(resources: Resources, file: File) -> psutil.Process:
    """The process that reads the file now."""
    until(lambda: bool(tick(resources)) and is_read(resources, file), seconds=60)
    folder = attempt_directories.attempt_directory(
        resources.settings.work_directory, file.id, reread(resources, file).attempt
    )
    return found(lambda: next((one for one in psutil.process_iter() if opens(one, folder)), None))


def opens(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(Path(found.path).is_relative_to(folder) for found in process.open_files())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def test_a_killed_reader_is_followed_by_another(
    resources: Resources, project_id: str, large: bytes, start_worker: StartWorker
) -> None:
    file = upload(resources, project_id, large)
    start_worker("intake")
    began(resources, file).kill()
    until(has(resources, file, "processed"), seconds=60)
    after = reread(resources, file)
    assert (after.pairs_count, after.crashes) == (PAIRS, 1)


def test_a_file_that_always_kills_its_reader_is_refused_by_name_and_holds_up_no_other(
    resources: Resources, project_id: str, large: bytes, archive: bytes, start_worker: StartWorker
) -> None:
    deadly = upload(resources, project_id, large)
    job = add_job(resources.sessions, deadly)
    start_worker("intake")
    for crash in range(1, 4):
        began(resources, deadly).kill()
        if crash == 1:
            harmless = upload(resources, project_id, archive)
        until(has_crashed(resources, deadly, crash), seconds=30)
    until(has(resources, harmless, "processed"), seconds=30)
    refused = reread(resources, deadly)
    assert refused.status == "error"
    assert (refused.status_details or "").startswith("intake_crashed: reading this file broke off 3 times")
    error = read_job(resources.sessions, job).error
    assert error is not None
    assert (error["code"], error["param"]) == ("invalid_file", "training_file")


def test_a_stopping_worker_gives_its_file_back_at_once(
    resources: Resources, project_id: str, large: bytes, start_worker: StartWorker, tmp_path: Path
) -> None:
    patient = resources.settings.model_copy(update={"lease_seconds": 300.0})
    resources = replace(resources, settings=patient)
    file = upload(resources, project_id, large)
    worker = start_worker("intake", lease_seconds=300)
    reader = began(resources, file)
    reader.suspend()  # so that it is not done before it can learn of the end
    worker.terminate()
    until(lambda: "Warm shutdown" in (tmp_path / "worker.log").read_text())
    reader.resume()
    until(lambda: not is_read(resources, file), seconds=10)
    worker.wait(20)
    assert reread(resources, file).status == "uploaded"
    assert attempts_left(resources.settings.home) == []
    start_worker("intake", lease_seconds=300)
    until(has(resources, file, "processed"), seconds=60)
    assert reread(resources, file).crashes == 0


def test_a_reader_that_stood_still_past_its_lease_writes_nothing_more(
    resources: Resources, project_id: str, large: bytes, start_worker: StartWorker, tmp_path: Path
) -> None:
    file = upload(resources, project_id, large)
    start_worker("intake")
    reader = began(resources, file)
    reader.suspend()
    until(lambda: bool(tick(resources)) and reread(resources, file).crashes == 1, seconds=30)
    other = resources.settings.model_copy(update={"home": tmp_path / "other-host"})
    read_file(replace(resources, settings=other), file.id)
    done = reread(resources, file)
    assert done.status == "processed"
    reader.resume()
    until(lambda: "intake.lease_lost" in (tmp_path / "worker.log").read_text(), seconds=60)
    after = reread(resources, file)
    assert (after.attempt, after.pairs_sha256, after.report) == (done.attempt, done.pairs_sha256, done.report)


@pytest.mark.parametrize("share_of_the_lease", [0.4, 2.0])
def test_a_reader_cut_off_from_postgresql_goes_on_within_its_lease_and_stops_after_it(
    resources: Resources,
    project_id: str,
    large: bytes,
    start_worker: StartWorker,
    proxied: tuple[Proxy, str],
    share_of_the_lease: float,
) -> None:
    proxy, url = proxied
    file = upload(resources, project_id, large)
    start_worker("intake", database_url=url)
    began(resources, file)
    lost = share_of_the_lease > 1
    with proxy.silent():
        if lost:
            until(lambda: bool(tick(resources)) and reread(resources, file).crashes == 1, seconds=30)
        else:
            missed = datetime.now(UTC) + timedelta(seconds=share_of_the_lease * resources.settings.lease_seconds)
            until(lambda: datetime.now(UTC) > missed)
    until(has(resources, file, "processed"), seconds=60)
    assert reread(resources, file).crashes == (1 if lost else 0)


def test_a_file_that_takes_more_memory_than_a_reader_may_is_refused_by_name(
    resources: Resources, project_id: str, archive: bytes, start_worker: StartWorker
) -> None:
    row = {"prompt": "a", "chosen": "a.png", "rejected": "b.png"}
    images = {name: encoded(Image.new("RGB", (7000, 7000), colour)) for name, colour in LARGE.items()}
    file = upload(resources, project_id, zip_of({"metadata.jsonl": jsonl(row), **images}.items()))
    start_worker("intake", intake_memory_bytes=2**26)
    until(has(resources, file, "error"), seconds=60)
    details = reread(resources, file).status_details or ""
    assert details.startswith("intake_memory: reading the file takes more than 64 MiB of memory")
    following = upload(resources, project_id, archive)
    until(has(resources, following, "processed"), seconds=60)


def test_a_worker_whose_disk_is_at_fault_leaves_the_file_to_others_and_says_so_at_the_last(
    resources: Resources, project_id: str, archive: bytes
) -> None:
    file = upload(resources, project_id, archive)
    resources.settings.work_directory.mkdir(parents=True)
    (resources.settings.work_directory / "attempts").write_text("in the way")
    for crash in range(1, 4):
        read_file(resources, file.id)
        assert reread(resources, file).crashes == crash
    refused = reread(resources, file)
    assert refused.status == "error"
    assert "the last time because a file or blob could not be read or written: " in (refused.status_details or "")


def test_a_waiting_job_shows_how_far_the_reading_is(
    resources: Resources, project_id: str, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.intake.file_intake.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("worker.intake.file_intake.EVENT_SECONDS", 0.0)
    file = upload(resources, project_id, archive)
    job = add_job(resources.sessions, file)
    read_file(resources, file.id)
    reported = [event for event in read_events(resources.sessions, job) if (event.data or {}).get("event") == "reading"]
    assert [event.data["rows"] for event in reported if event.data] == [*range(1, 15), 14]
    assert reported[-1].message == f"Storing {file.id}: 0 of 28 images."
    assert reported[0].message == f"Reading {file.id}: 1 of 14 rows, 1 pair kept."


def test_small_uploads_are_read_while_a_large_one_is(
    resources: Resources, start_worker: StartWorker, project_id: str, large: bytes
) -> None:
    file = upload(resources, project_id, large)
    start_worker("intake", READERS)
    assert resources.hints.read_file(file.id)
    until(lambda: is_read(resources, file), seconds=30)
    small = [
        upload(resources, project_id, zip_of({**good_files(), "more": bytes([number])}.items())) for number in range(3)
    ]
    for one in small:
        assert resources.hints.read_file(one.id)
        until(has(resources, one, "processed"), seconds=30)
    assert reread(resources, file).status == "uploaded"
