"""PostgreSQL after it was killed: what it left behind must not keep `pairtune up` from starting."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from cli.local.embedded import Postgres, ServiceDidNotStart
from tests.api.polling import until
from tests.cli.home import running

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Of a server that was once started and stopped in good order."""
    postgres = Postgres(tmp_path)
    postgres.stop()
    yield tmp_path / "postgres"
    if (tmp_path / "postgres" / "postmaster.pid").exists():
        Postgres(tmp_path).stop()


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))


def answers(postgres: Postgres) -> bool:
    with psycopg.connect(postgres.url.replace("+psycopg", "")) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


@contextmanager
def a_backend_that_stays(folder: Path, postgres: Postgres) -> Iterator[psutil.Process]:
    """Of a server that is killed with all its other processes."""
    with closing(psycopg.connect(postgres.url.replace("+psycopg", ""))) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        server = postmaster(folder)
        family = [server, *server.children()]
        for one in family:
            one.suspend()
        for one in family:
            if one != backend:
                one.kill()
        until(lambda: running(family) == [backend])
        yield backend


def test_a_start_outlasts_a_process_of_the_killed_server_that_is_still_ending(folder: Path) -> None:
    with a_backend_that_stays(folder, Postgres(folder.parent)) as backend:
        threading.Timer(3.0, backend.kill).start()
        assert answers(Postgres(folder.parent))


def test_a_recovery_may_take_longer_than_the_librarys_ten_seconds(folder: Path) -> None:
    (folder / "recovery.signal").touch()  # it asks for two files that are not in the archive
    with (folder / "postgresql.conf").open("a") as conf:
        conf.write("restore_command = 'sleep 7; false'\n")
    assert answers(Postgres(folder.parent))


def test_none_is_started_next_to_a_process_of_the_killed_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the number of the killed one is another process's by now, which PostgreSQL cannot see."""
    with a_backend_that_stays(folder, Postgres(folder.parent)) as backend:
        monkeypatch.setattr("cli.local.embedded.STOP_SECONDS", 0.5)
        file = folder / "postmaster.pid"
        file.write_text("\n".join([str(os.getpid()), *file.read_text().splitlines()[1:]]) + "\n")
        with pytest.raises(ServiceDidNotStart, match="still use"):
            Postgres(folder.parent)
        backend.kill()


@pytest.mark.parametrize("left", ["four lines", "zeros"])
def test_a_server_that_was_killed_as_it_started_does_not_stand_in_the_way(folder: Path, left: str) -> None:
    Postgres(folder.parent)
    server = postmaster(folder)
    family = [server, *server.children()]
    for one in family:
        one.send_signal(signal.SIGKILL)
    until(lambda: not running(family))
    file = folder / "postmaster.pid"
    file.write_text("\n".join(file.read_text().splitlines()[:4]) + "\n" if left == "four lines" else "\0" * 99)
    assert answers(Postgres(folder.parent))


def test_a_server_that_cannot_start_is_reported_with_its_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.local.embedded.STOP_SECONDS", 0.5)
    with (folder / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    with pytest.raises(ServiceDidNotStart, match=f"see {folder / 'log'}"):
        Postgres(folder.parent)
    (folder / "postgresql.conf").write_text("")
