"""What cannot start says why in a sentence: wrong settings, passwords and addresses, in every program of ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.engine import make_url

from cli.local import checks
from store.blobs.blobs import Blobs
from store.database import open_engine
from store.settings import REPOSITORY, Settings
from tests import servers
from tests.cli.home import Home

pytestmark = pytest.mark.integration
CELERY = ("celery", "--quiet", "--app", "worker.app", "worker", "--concurrency", "1", "--queues", "intake")
PROGRAMS = {
    "migrate": ("migrations",),
    "api": ("api.server", "--port", "0"),
    "dispatcher": ("worker.dispatcher",),
    "worker": CELERY,
    "up": ("cli.main", "up"),
    "doctor": ("cli.main", "doctor"),
    "keys": ("cli.main", "keys", "list"),
}


def run(tmp_path: Path, program: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Until it has ended by itself."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PAIRTUNE_")}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = {"PAIRTUNE_HOME": str(tmp_path / "home"), "PAIRTUNE_PORT": str(probe.getsockname()[1])}
    environment = {**others, "PYTHONPATH": str(REPOSITORY), **own, **given}
    command = [sys.executable, "-m", *PROGRAMS[program]]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_settings_stop_every_program_at_its_start(tmp_path: Path, program: str) -> None:
    given = {"PAIRTUNE_LEASE_SECONDS": "-5", "PAIRTUNE_CRASH_CAPS": "3"}
    urls = {"PAIRTUNE_DATABASE_URL": "postgresql+psycopg://h/d", "PAIRTUNE_BROKER_URL": "redis://h"}
    ended = run(tmp_path, program, **urls, **given)
    assert ended.returncode in (1, 2)
    assert ended.stderr.splitlines() == [
        "PAIRTUNE_CRASH_CAPS: there is no such setting; did you mean PAIRTUNE_CRASH_CAP?",
        "PAIRTUNE_LEASE_SECONDS: Input should be greater than 0.",
    ]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("program", ["migrate", "api", "dispatcher", "worker"])
def test_a_service_without_its_database_or_broker_says_which_setting_is_missing(tmp_path: Path, program: str) -> None:
    ended = run(tmp_path, program)
    assert ended.returncode == 1
    missing = "BROKER" if program == "worker" else "DATABASE"
    assert ended.stderr.splitlines()[-1].startswith(f"PAIRTUNE_{missing}_URL is not set: ")
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def guarded_postgres() -> Iterator[str]:
    """A PostgreSQL that wants the password of one of its users."""
    with servers.postgres() as url:
        engine = open_engine(url, pool_size=1)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right'"))
            rules = Path(connection.scalars(text("SHOW hba_file")).one())
            rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield url


def databases(url: str) -> dict[str, str]:
    """Ways of being wrong, each with a piece of the answer."""
    of = make_url(url)
    return {
        of.set(username="guarded", password="wr0ng").render_as_string(hide_password=False): "password authentication",
        of.set(username="guarded").render_as_string(hide_password=False): "no password supplied",
        of.set(database="nowhere").render_as_string(hide_password=False): 'database "nowhere" does not exist',
        of.set(username="nobody").render_as_string(hide_password=False): 'role "nobody" does not exist',
        "postgresql+psycopg://me:wr0ng@127.0.0.1:9/x": "refused",
        "postgresql+psycopg://me:wr0ng@nowhere.invalid/x": "nowhere.invalid",
        "postgresql+nothing://me:wr0ng@127.0.0.1/x": "should be like postgresql+psycopg://",
        "wr0ng": "should be like postgresql+psycopg://",
    }


@pytest.mark.parametrize(
    ("program", "way"), [*(("migrate", way) for way in range(8)), *(("up", way) for way in (0, 2, 6)), ("keys", 0)]
)
def test_a_database_that_cannot_be_used_is_a_sentence(
    tmp_path: Path, guarded_postgres: str, broker_url: str, program: str, way: int
) -> None:
    url, reason = list(databases(guarded_postgres).items())[way]
    ended = run(tmp_path, program, PAIRTUNE_DATABASE_URL=url, PAIRTUNE_BROKER_URL=broker_url)
    assert ended.returncode in (1, 2)
    [line] = ended.stderr.splitlines()
    assert line.startswith("PAIRTUNE_DATABASE_URL: ")
    assert reason in line
    assert "wr0ng" not in line
    assert ended.stdout == ""


@pytest.mark.parametrize("way", range(8))
def test_doctor_says_what_is_wrong_with_a_database(tmp_path: Path, guarded_postgres: str, way: int) -> None:
    url, reason = list(databases(guarded_postgres).items())[way]
    found = checks.database(Settings(home=tmp_path, database_url=url))
    assert (found.state, "\n" in found.found, "wr0ng" in found.found) == ("error", False, False)
    assert reason in found.found


@pytest.fixture(scope="module")
def guarded_valkey() -> Iterator[str]:
    """A broker that wants a password; yields its URL without one."""
    with servers.valkey() as url:
        with servers.broker_client(url) as client:
            client.config_set("requirepass", "right")
        yield url.removeprefix("redis+socket://")


def brokers(path: str) -> dict[str, str]:
    return {
        f"redis+socket://:wr0ng@{path}": "refuses the password",
        f"redis+socket://{path}": "refuses the password",
        f"redis+socket://nobody:wr0ng@{path}": "refuses the password",
        "redis://:wr0ng@127.0.0.1:9/0": "does not answer",
        "redis+socket:///nowhere.sock": "does not answer",
        "amqp://me:wr0ng@127.0.0.1//": "is not the URL of a broker",
    }


@pytest.mark.parametrize("way", range(6))
def test_a_broker_that_is_away_or_refuses_the_password_is_a_sentence(
    tmp_path: Path, guarded_valkey: str, database_url: str, way: int
) -> None:
    url, reason = list(brokers(guarded_valkey).items())[way]
    ended = run(tmp_path, "up", PAIRTUNE_DATABASE_URL=database_url, PAIRTUNE_BROKER_URL=url)
    [line] = ended.stderr.splitlines()
    assert (ended.returncode, line.startswith("PAIRTUNE_BROKER_URL: ")) == (1, True)
    assert reason in line
    assert "wr0ng" not in line
    found = checks.broker(Settings(home=tmp_path, broker_url=url))
    assert (found.state, reason in found.found, bool(found.cure)) == ("error", True, True)


def test_the_right_password_is_taken(tmp_path: Path, guarded_valkey: str) -> None:
    with redis.Redis(unix_socket_path=guarded_valkey, password="right") as client:
        assert client.ping()
    found = checks.broker(Settings(home=tmp_path, broker_url=f"redis+socket://:right@{guarded_valkey}"))
    assert found.state == "ok"


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_object_store_over_http_names_the_variable_that_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", variable: "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    found = checks.storage(Settings(home=tmp_path, blob_url="s3://bucket"))
    assert (found.state, "set AWS_ALLOW_HTTP=true" in found.found) == ("error", True)
    if variable == "AWS_ENDPOINT":
        ended = run(tmp_path, "up", PAIRTUNE_BLOB_URL="s3://bucket")
        [line] = ended.stderr.splitlines()
        assert (ended.returncode, line.startswith("PAIRTUNE_BLOB_URL: ")) == (1, True)
        assert "set AWS_ALLOW_HTTP=true" in line
    assert not Blobs("s3://bucket").reachable()
    assert "set AWS_ALLOW_HTTP=true" in capsys.readouterr().out


def test_up_starts_nothing_when_it_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert home.up(PAIRTUNE_BROKER_URL="redis://127.0.0.1:9/0").wait(60) == 1
    assert not (home.path / "postgres").exists()
