"""``pairtune datasets`` against a live server, whose uploads an intake worker of the test reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from store.blobs.blobs import Blobs
from store.hints import Hints
from store.settings import Settings
from tests.api.serving import Live
from tests.cli.test_commands import Run, run
from tests.intake.build import ROW, good_files, jsonl, zip_of
from tests.intake.formats.test_formats import pick_a_pic
from worker.intake.file_intake import read_file
from worker.resources import Resources

__all__ = ["run"]  # a fixture
pytestmark = pytest.mark.integration


@pytest.fixture
def intake(live: Live, valkey_url: str) -> Iterator[None]:
    """Reads whatever is uploaded, until the test ends."""
    deployment = Settings(home=live.home, broker_url=valkey_url)
    resources = Resources(deployment, live.sessions, Blobs(f"file://{live.home / 'blobs'}"), Hints(valkey_url), "test")
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.1):
            with live.sessions() as session:
                waiting = list(session.scalars(text("SELECT id FROM files WHERE status = 'uploaded'")))
            for file_id in waiting:
                read_file(resources, file_id)

    worker = threading.Thread(target=work)
    with capture_logs():  # what it says is none of the command's output
        worker.start()
        yield
        ended.set()
        worker.join()


@pytest.fixture
def dataset(run: Run) -> str:
    result = run("datasets", "create", "foxes", "--json")
    assert result.exit_code == 0, result.output
    return str(json.loads(result.stdout)["id"])


@pytest.mark.usefixtures("intake")
def test_files_are_uploaded_read_and_added_and_the_whole_is_reported(run: Run, dataset: str, tmp_path: Path) -> None:
    archive, table = tmp_path / "pairs.zip", tmp_path / "votes.parquet"
    archive.write_bytes(zip_of(good_files().items()))
    table.write_bytes(pick_a_pic({}, {"caption": "a hen", "label_0": 0.5, "label_1": 0.5}))
    added = run("datasets", "add", dataset, archive, table, "--ties", "both")
    assert added.exit_code == 0, added.output
    assert added.stdout == f"{dataset} is at revision 3 with 4 pairs.\n"
    listed = json.loads(run("datasets", "list", "--json").stdout)
    assert [one["pairs"] for one in listed if one["id"] == dataset] == [4]
    assert "4 pairs kept" in run("datasets", "report", dataset).stdout
    assert json.loads(run("datasets", "report", dataset, "--revision", 2, "--json").stdout)["kept"] == 1


@pytest.mark.usefixtures("intake")
def test_an_upload_that_cannot_be_used_ends_with_5_and_its_report_says_why(
    run: Run, dataset: str, tmp_path: Path
) -> None:
    table = tmp_path / "votes.parquet"
    table.write_bytes(pick_a_pic({}, {"jpg_0": b"broken"}))
    refused = run("datasets", "add", dataset, table)
    assert refused.exit_code == 5
    assert "image_unreadable: the parquet file row 2" in refused.stderr
    assert run("datasets", "add", dataset, table, "--invalid-rows", "drop").exit_code == 0
    reported = run("datasets", "report", table)
    assert reported.exit_code == 0
    assert reported.stdout.startswith("parquet/pick-a-pic: 2 rows read, 1 pair kept.\n  1 dropped: image_unreadable\n")


@pytest.mark.usefixtures("intake")
def test_strict_takes_every_warning_for_an_error(run: Run, dataset: str, tmp_path: Path) -> None:
    archive = tmp_path / "pairs.zip"
    chosen_only = jsonl({name: value for name, value in ROW.items() if name != "rejected"})
    archive.write_bytes(zip_of((good_files() | {"metadata.jsonl": chosen_only}).items()))
    refused = run("datasets", "add", dataset, archive, "--strict")
    assert refused.exit_code == 5
    assert "rejected_missing" in refused.stderr
    assert run("datasets", "add", dataset, archive).exit_code == 0


def test_a_wrong_policy_and_an_unknown_data_set_are_refused_with_4(run: Run, dataset: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    assert run("datasets", "add", dataset, tmp_path / "a.zip", "--ties", "flip").exit_code == 4
    assert run("datasets", "report", "ds-nothing").exit_code == 4
