"""A disk that is full, a size limit, and a PostgreSQL without room: 507, nothing lost, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from store.database import Sessions, open_engine
from store.settings import Settings
from tests.api.dataset_steps import Answer, image_file
from tests.api.open_request import uploads
from tests.api.serving import Live, serving

pytestmark = pytest.mark.integration
DISK_ERRORS = 4 * 2**20  # bytes; what the small disk holds, or the largest file that may be written
THIRD = random.Random(1).randbytes(DISK_ERRORS // 3)
TOO_MUCH = random.Random(2).randbytes(DISK_ERRORS + 2**20)


@dataclass(frozen=True)
class Cramped:
    """A server without room for much; ``relieve`` makes room."""

    server: Live
    client: httpx.Client
    relieve: Callable[[], object]
    parts_that_fit: range


@contextmanager
def small_filesystem(at: Path) -> Iterator[Callable[[], None]]:
    """A tmpfs of ROOM; yields what makes it ten times as large."""
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_ERRORS}", "tmpfs", str(at)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no permission to mount a small filesystem here")
    try:
        yield lambda: _remount(at, 10 * DISK_ERRORS)
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def _remount(at: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(at)], check=True)


@pytest.fixture(params=["one disk", "the blobs' disk", "size limit"])
def cramped(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, valkey_url: str) -> Iterator[Cramped]:
    log = tmp_path / "log"
    home = tmp_path / "home"
    if request.param == "size limit":
        home.mkdir()
        with serving(
            home, postgres_url, valkey_url, log=log, min_free_bytes=0, limits={resource.RLIMIT_FSIZE: DISK_ERRORS}
        ) as server:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            yield Cramped(
                server,
                client_of(server),
                lambda: resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited),
                range(3),
            )
        return
    disk = home if request.param == "one disk" else tmp_path / "disk"
    with small_filesystem(disk) as relieve:
        home.mkdir(exist_ok=True)
        options: dict[str, Any] = {} if disk == home else {"blob_url": f"file://{disk}/blobs"}
        with serving(home, postgres_url, valkey_url, log=log, min_free_bytes=0, **options) as server:
            yield Cramped(server, client_of(server), relieve, range(2))


def client_of(server: Live) -> httpx.Client:
    headers = {"authorization": f"Bearer {server.tenant.api_key}"}
    return httpx.Client(base_url=f"{server.url}/v1", headers=headers, timeout=30)


def send(client: httpx.Client, content: bytes) -> httpx.Response:
    return client.post("/files", files={"file": ("a.zip", content)}, data={"purpose": "fine-tune"})


def begin(client: httpx.Client, size: int) -> str:
    requested = {"filename": "a.zip", "bytes": size, "mime_type": "application/zip", "purpose": "fine-tune"}
    return f"/uploads/{client.post('/uploads', json=requested).json()['id']}"


def check_507(answer: Answer) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (507, "insufficient_storage", "server_error")
    assert "space" in error["message"]
    assert answer.headers["x-should-retry"] == "false"


def test_a_file_without_disk_space_is_507_and_what_was_there_stays(cramped: Cramped) -> None:
    with cramped.client as client:
        stored = send(client, THIRD).json()
        check_507(send(client, TOO_MUCH))
        assert uploads(cramped.server) == []
        assert [file["id"] for file in client.get("/files").json()["data"]] == [stored["id"]]
        assert client.get(f"/files/{stored['id']}/content").content == THIRD
        cramped.relieve()
        assert send(client, TOO_MUCH).json()["bytes"] == len(TOO_MUCH)
    log = cramped.server.log.read_text()
    assert "insufficient_storage" in log
    assert cramped.server.tenant.api_key not in log  # nor in the traceback


def test_a_part_without_disk_space_is_507_and_the_upload_goes_on_when_there_is_some(cramped: Cramped) -> None:
    with cramped.client as client:
        upload = begin(client, len(THIRD) + len(TOO_MUCH))
        first = client.post(f"{upload}/parts", files={"data": ("a", THIRD)}).json()
        check_507(client.post(f"{upload}/parts", files={"data": ("a", TOO_MUCH)}))
        assert uploads(cramped.server) == []
        assert [part["id"] for part in client.get(f"{upload}/parts").json()["data"]] == [first["id"]]
        cramped.relieve()
        second = client.post(f"{upload}/parts", files={"data": ("a", TOO_MUCH)}).json()
        completed = client.post(f"{upload}/complete", json={"part_ids": [first["id"], second["id"]]}).json()
        assert client.get(f"/files/{completed['file']['id']}/content").content == THIRD + TOO_MUCH


def test_a_completion_without_disk_space_loses_no_part(cramped: Cramped) -> None:
    """The parts fit, and not the file beside them; under a size limit, three fit where two fill a disk."""
    content = [random.Random(number).randbytes(DISK_ERRORS * 2 // 5) for number in cramped.parts_that_fit]
    with cramped.client as client:
        upload = begin(client, sum(map(len, content)))
        sent = [client.post(f"{upload}/parts", files={"data": ("a", one)}).json()["id"] for one in content]
        check_507(client.post(f"{upload}/complete", json={"part_ids": sent}))
        assert client.get(upload).json()["status"] == "pending"
        assert uploads(cramped.server) == []
        assert client.get("/files").json()["data"] == []
        cramped.relieve()
        completed = client.post(f"{upload}/complete", json={"part_ids": sent}).json()
        assert client.get(f"/files/{completed['file']['id']}/content").content == b"".join(content)


def test_a_disk_without_a_byte_left_even_for_the_log_is_507(tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    disk = tmp_path / "disk"
    with (
        small_filesystem(disk),
        serving(disk, postgres_url, valkey_url, min_free_bytes=0) as server,
        client_of(server) as client,
    ):
        stored = send(client, THIRD).json()["id"]
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(2**12))
        for _ in range(20):  # more than what is left of the log's last block
            check_507(send(client, TOO_MUCH))
        assert client.get(f"/files/{stored}/content").content == THIRD
        (disk / "filler").unlink()
        assert send(client, THIRD[:1000]).status_code == 200


@pytest.fixture
def no_room_for_rows(sessions: Sessions) -> Iterator[None]:
    """PostgreSQL's own error, from PostgreSQL, for every new file and upload."""
    with sessions.begin() as session:
        session.execute(
            text(
                "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left' USING ERRCODE = 'disk_full'; END $$"
            )
        )
        for table in ("files", "uploads", "upload_parts"):
            session.execute(text(f"CREATE TRIGGER no_room BEFORE INSERT ON {table} EXECUTE FUNCTION no_room()"))
    yield
    with sessions.begin() as session:
        session.execute(text("DROP FUNCTION no_room() CASCADE"))


@pytest.mark.usefixtures("no_room_for_rows")
def test_a_postgresql_without_disk_space_is_507(client: TestClient, settings: Settings) -> None:
    check_507(client.post("/v1/files", files={"file": ("a", b"x")}, data={"purpose": "fine-tune"}))
    requested = {"filename": "a.zip", "bytes": 1, "mime_type": "application/zip", "purpose": "fine-tune"}
    check_507(client.post("/v1/uploads", json=requested))
    assert list(settings.upload_directory.iterdir()) == []
    assert client.get("/v1/files").json()["data"] == []


@pytest.fixture
def small_tablespace(postgres_url: str) -> Iterator[Path]:
    """The directory of the tablespace ``small``, a filesystem of its own that PostgreSQL may write to."""
    with tempfile.TemporaryDirectory(prefix="pt-") as home:
        Path(home).chmod(0o755)
        disk = Path(home) / "disk"
        with small_filesystem(disk):
            with autocommitting(postgres_url) as connection:
                data = Path(connection.scalar(text("SHOW data_directory")))
                (disk / "small").mkdir()
                os.chown(disk / "small", data.stat().st_uid, data.stat().st_gid)
                connection.execute(text(f"CREATE TABLESPACE small LOCATION '{disk}/small'"))
            yield disk
            with autocommitting(postgres_url) as connection:
                connection.execute(text("DROP TABLESPACE small"))


@contextmanager
def autocommitting(url: str) -> Iterator[Connection]:
    engine = open_engine(url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection
    engine.dispose()


def test_a_tablespace_that_fills_up_is_507_until_there_is_space(
    small_tablespace: Path, tmp_path: Path, postgres_url: str, valkey_url: str
) -> None:
    requested = {"filename": "a" * 200, "bytes": 1, "mime_type": "application/zip", "purpose": "fine-tune"}
    filler = small_tablespace / "filler"
    with serving(tmp_path, postgres_url, valkey_url) as server, client_of(server) as client:
        with server.sessions.begin() as session:
            session.execute(text("ALTER TABLE uploads SET TABLESPACE small"))
        begun = [client.post("/uploads", json=requested).json()["id"]]
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(bytes(2**12))
        while (answer := client.post("/uploads", json=requested)).status_code == 200:
            begun.append(answer.json()["id"])
            assert len(begun) < 1000
        check_507(answer)
        assert all(client.get(f"/uploads/{upload_id}").status_code == 200 for upload_id in begun)
        filler.unlink()
        assert client.post("/uploads", json=requested).status_code == 200


def test_a_pair_without_disk_space_is_507_and_makes_no_revision(cramped: Cramped) -> None:
    larger_than_room = image_file(1, (1400, 1100))  # 4.6 MB of noise, which PNG cannot make smaller
    with cramped.client as client:
        path = f"/datasets/{client.post('/datasets', json={'name': 'foxes'}).json()['id']}"
        pair: dict[str, Any] = {"data": {"prompt": "a fox"}, "files": {"chosen": ("a.png", larger_than_room)}}
        check_507(client.post(f"{path}/pairs", **pair))
        assert uploads(cramped.server) == []
        assert client.get(path).json()["revision"] == 1
        cramped.relieve()
        assert client.post(f"{path}/pairs", **pair).json()["added_in"] == 2
