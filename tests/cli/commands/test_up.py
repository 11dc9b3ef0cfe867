"""`pairtune up` as a user has it: one command, one home, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from api.caches.principals import CACHE_SECONDS
from cli.commands.up import _document, _greeting
from cli.local.local_limits import unlimited
from cli.local.private_home import make_private
from cli.local.stack import Up
from cli.main import app
from store.settings import Settings, settings
from tests.api.polling import until
from tests.cli.home import Home, child_running, gone, running
from tests.cli.test_commands import Run

pytestmark = pytest.mark.integration

SERVICES = 5  # API, dispatcher, three workers


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, True), ({"host": "10.0.0.1"}, False), ({"requests_per_minute": 5}, False), ({"host": "localhost"}, True)],
)
def test_only_whoever_is_on_this_machine_may_send_without_limit(given: dict[str, object], expected: bool) -> None:
    assert unlimited(Settings.model_validate(given)) == expected


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture
def run(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Commands of a user who has set nothing but which home it is."""
    for name in [name for name in os.environ if name.startswith("PAIRTUNE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PAIRTUNE_HOME", str(home.path))
    monkeypatch.setenv("PAIRTUNE_PORT", str(home.port))
    settings.cache_clear()
    runner = CliRunner()
    yield lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
    settings.cache_clear()


def test_up_serves_a_home_until_it_is_stopped_and_leaves_no_process_behind(home: Home, run: Run) -> None:
    up = home.up_and_ready()
    key = (home.path / "local.key").read_text().strip()
    assert key not in home.printed(0)
    assert str(home.path / "local.key") in home.printed(0)
    assert stat.S_IMODE((home.path / "local.key").stat().st_mode) == 0o600
    assert_private(home.path)
    models = home.get("/v1/models")
    assert models is not None
    assert [model["id"] for model in models.json()["data"]] == ["tiny"]

    # Keys and projects need no more than the home.
    made = json.loads(run("keys", "create", "nightly", "--project", "icons", "--json").stdout)
    answer = home.get("/v1/models", key=made["key"])
    assert answer is not None
    assert answer.is_success
    assert f"{made['id']}\t{made['key'][:10]}\tnightly\ticons" in run("keys", "list").stdout
    assert run("keys", "revoke", made["id"]).exit_code == 0
    assert home.status("/v1/datasets", "POST", key=made["key"]) == 401
    until(lambda: home.status("/v1/models", key=made["key"]) == 401, seconds=10 * CACHE_SECONDS)
    assert run("projects", "set", "icons", "--queued-jobs", "3").exit_code == 0
    limits = {one["name"]: one for one in json.loads(run("projects", "list", "--json").stdout)}
    assert (limits["icons"]["queued_jobs"], limits["icons"]["requests_per_minute"]) == (3, None)
    found = {one["name"]: one for one in json.loads(run("doctor", "--json").stdout)}
    assert {found[name]["state"] for name in ("database", "broker", "api")} == {"ok"}

    second = home.up(PAIRTUNE_PORT="1")
    assert second.wait(60) == 1
    assert f"pairtune is already up in {home.path}; set PAIRTUNE_HOME" in home.printed(1)

    # Killed outright, it takes its services along; only PostgreSQL stays, and the next one takes it over.
    family = [child for child in up.children(recursive=True) if child.name() != "postgres"]
    postmaster = home.postmaster()
    assert postmaster is not None
    up.kill()
    up.wait()
    until(gone(family))
    assert postmaster.is_running()

    third = home.up_and_ready("--json")
    assert home.postmaster() == postmaster
    assert key not in home.printed(2)
    document = json.loads(home.printed(2))
    assert document["url"] == f"http://127.0.0.1:{home.port}/v1"
    assert document["key_file"] == str(home.path / "local.key")
    for word in ("worker.dispatcher", "valkey-server"):
        child_running(third, word).kill()
    until(lambda: "dispatcher ended with code -9; starting it again" in home.printed(2), seconds=20)
    until(lambda: "valkey had ended and was started again" in home.printed(2), seconds=20)
    until(home.ready, seconds=20)
    until(lambda: len(running(third.children())) == SERVICES + 1)

    family = [*third.children(recursive=True), postmaster, *postmaster.children()]
    third.send_signal(signal.SIGINT)
    assert third.wait(60) == 0
    assert "Stopping" in home.printed(2)
    assert running(family) == []
    assert home.get("/healthz") is None
    stopped = run("keys", "list")
    assert (stopped.exit_code, f"does not run in {home.path}" in stopped.stderr) == (2, True)


def assert_private(home: Path) -> None:
    """Nobody else reads it; as root, PostgreSQL's user passes through it."""
    assert stat.S_IMODE(home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    for name in ("logs", "blobs", "uploads", "work", "valkey"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o700, name


def test_an_open_home_is_closed_and_a_directory_of_everybody_stays_open(tmp_path: Path) -> None:
    home, common = tmp_path / "home", tmp_path / "common"
    (home / "blobs").mkdir(parents=True)
    for one in (home, home / "blobs", common):
        one.mkdir(exist_ok=True)
        one.chmod(0o777)
    common.chmod(0o1777)
    make_private(home)
    make_private(common)
    assert_private(home)
    assert stat.S_IMODE(common.stat().st_mode) == 0o1777


@pytest.mark.parametrize("terminal", [True, False])
def test_the_first_key_is_shown_on_a_terminal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI services set it
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    found = Up("http://127.0.0.1:8000/v1", str(tmp_path), str(tmp_path / "logs"), "local.key", "pt-secret")
    _greeting(Console(file=sys.stdout), found)
    _document(found)
    printed = capsys.readouterr().out
    assert printed.count("pt-secret") == (1 if terminal else 0)
    assert "local.key" in printed


@pytest.mark.parametrize(
    ("content", "reason"),
    [("[[base]\n", "cannot be used"), ('[[base]]\nname = "x"\nfamily = "sdxl"\nsource = "./gone"\n', "no directory")],
)
def test_a_list_of_bases_that_cannot_be_used_is_reported_before_anything_starts(
    home: Home, content: str, reason: str
) -> None:
    (home.path / "bases.toml").write_text(content)
    assert home.up().wait(60) == 1
    assert reason in home.printed(0)
    assert "Traceback" not in home.printed(0)
    assert not (home.path / "postgres").exists()


def test_a_home_that_postgresql_cannot_live_in_is_reported(tmp_path: Path) -> None:
    home = Home(tmp_path / "my home")
    assert home.up().wait(60) == 1
    assert "has a space in it; set PAIRTUNE_HOME to another directory." in home.printed(0)


def test_a_taken_port_is_reported(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", home.port))
        taken.listen()
        assert home.up().wait(60) == 1
    assert f"Port {home.port} on 127.0.0.1 is taken; set PAIRTUNE_PORT." in home.printed(0)
