"""A child and what it started: signalled and ended together, and gone with their parent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from store.settings import REPOSITORY
from tests.api.polling import until
from worker.runtime import process
from worker.runtime.stop import Stop

pytestmark = pytest.mark.unit

# A child with a child of its own, both deaf to SIGTERM where ``deaf``; each writes what it receives into a file.
FAMILY = """
import os, pathlib, signal, subprocess, sys, time
name, deaf = sys.argv[1:]
received = pathlib.Path(name)
def receive(number, frame):
    received.write_text("SIGTERM")
    if deaf != "deaf":
        sys.exit(75)
signal.signal(signal.SIGTERM, receive)
if name == "parent":
    subprocess.Popen([sys.executable, "-S", __file__, "child", deaf])
pathlib.Path(name + ".ready").touch()
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def family(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    (tmp_path / "family.py").write_text(FAMILY)
    with (tmp_path / "stderr.log").open("wb") as stderr:
        command = [sys.executable, "-S", str(tmp_path / "family.py"), "parent", request.param]
        parent = process.start(command, cwd=tmp_path, stderr=stderr)
    until(lambda: all((tmp_path / f"{name}.ready").exists() for name in ("parent", "child")))
    [child] = psutil.Process(parent.pid).children()
    yield parent, child
    for one in (psutil.Process(parent.pid) if parent.poll() is None else None, child):
        if one is not None and one.is_running():
            one.kill()
    parent.wait()
    if parent.stdout is not None:
        parent.stdout.close()


def gone(one: psutil.Process) -> bool:
    return not one.is_running() or one.status() == psutil.STATUS_ZOMBIE


Family = tuple[subprocess.Popen[bytes], psutil.Process]


@pytest.mark.parametrize("family", ["deaf"], indirect=True)
def test_the_end_of_a_group_is_that_of_all_its_processes(family: Family) -> None:
    parent, child = family
    process.end_group(parent)
    assert parent.returncode == -signal.SIGKILL
    until(lambda: gone(child))


@pytest.mark.parametrize("family", ["hearing"], indirect=True)
def test_a_group_whose_leader_has_ended_is_ended_too(family: Family) -> None:
    parent, child = family
    process.signal_child(parent, signal.SIGTERM)
    assert parent.wait(10) == 75
    assert not gone(child)
    process.end_group(parent)
    until(lambda: gone(child))


@pytest.mark.parametrize("family", ["hearing"], indirect=True)
def test_the_first_press_stops_everyone_and_a_press_within_the_grace_time_kills_nobody(
    family: Family, tmp_path: Path
) -> None:
    parent, child = family
    stop = Stop(parent, grace_seconds=60)
    before = stop.requested
    stop.request()
    stop.request()
    assert (before, stop.requested) == (False, True)
    assert parent.wait(10) == 75
    until(lambda: gone(child))
    assert (tmp_path / "child").read_text() == (tmp_path / "parent").read_text() == "SIGTERM"


@pytest.mark.parametrize("family", ["deaf"], indirect=True)
def test_a_press_after_the_grace_time_kills_everyone(family: Family, tmp_path: Path) -> None:
    parent, child = family
    stop = Stop(parent, grace_seconds=0)
    stop.request()
    until(lambda: (tmp_path / "parent").exists() and (tmp_path / "child").exists())
    assert parent.poll() is None
    stop.request()
    assert parent.wait(10) == -signal.SIGKILL
    until(lambda: gone(child))


def test_a_child_whose_parent_was_killed_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from worker.runtime import process\n"
        "child = process.start([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], cwd=Path(), "
        "stderr=sys.stderr.buffer)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until(lambda: gone(child))


SECRETS = (
    *("PAIRTUNE_DATABASE_URL", "PAIRTUNE_BROKER_URL", "PAIRTUNE_WEBHOOKS_KEY", "PAIRTUNE_API_KEY", "PAIRTUNE_BLOB_URL"),
    *("pairtune_webhooks_key", "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "PGPASSWORD", "DATABASE_URL", "REDISCLI_AUTH"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "aws_secret_access_key", "GOOGLE_SERVICE_ACCOUNT_KEY"),
    *("AZURE_STORAGE_ACCOUNT_KEY", "GITHUB_TOKEN", "WANDB_API_KEY", "SENTRY_DSN", "SECRET", "MY_TOKEN"),
)


def test_a_program_gets_no_secret_but_what_torch_and_the_hub_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_TOKEN", "https_proxy", "LC_ALL", "TMPDIR")
    for name in (*SECRETS, *wanted):
        monkeypatch.setenv(name, "1")
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    with (tmp_path / "stderr.log").open("wb") as stderr:
        child = process.start([sys.executable, "-S", "-c", program], cwd=tmp_path, stderr=stderr)
    printed, _ = child.communicate(timeout=60)
    given = json.loads(printed)
    assert given.keys().isdisjoint(SECRETS)
    assert given.keys() >= {*wanted, "PATH"}


def test_a_child_whose_parent_ended_before_it_could_say_so_ends_at_once() -> None:
    program = "import os; from worker.runtime import process; process.die_with_parent(os.getppid() + 1); print('alive')"
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")


def test_all_that_a_service_prints_is_appended_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    program = "import os, sys; print(os.environ['NAME'], os.getcwd()); print('error', file=sys.stderr)"
    service = process.start_logged(
        [sys.executable, "-S", "-c", program], cwd=tmp_path, log=log, environment={"NAME": "service"}
    )
    assert service.wait(60) == 0
    assert sorted(log.read_text().splitlines()) == sorted(["before", f"service {tmp_path.resolve()}", "error"])
