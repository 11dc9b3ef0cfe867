"""The wheel in an environment of its own: a client without torch, and all of pairtune with every extra."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath
from sysconfig import get_path

import pytest

from tests.api.polling import until
from tests.api.serving import Live
from tests.docker.test_images import installed_with

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHARED = Path(get_path("purelib"))
READY = 120.0  # seconds, on a machine that may be busy
MEBI = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, in which setuptools may leave what it likes."""
    source = tmp_path_factory.mktemp("source")
    for path in ROOT.glob("*/py.typed"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path.parent, source / path.parent.name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    built = tmp_path_factory.mktemp("dist")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (found,) = built.iterdir()
    return found


def environment(folder: Path, wheel: Path, distributions: set[str] | None) -> Path:
    """A fresh environment with the wheel and links to what is installed here: ``distributions``, or all without it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-index", str(wheel)]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options]
    subprocess.run(command, env=variables(), check=True)  # else a checkout on PYTHONPATH counts as installed
    site = next((folder / "lib").glob("python3*/site-packages"))
    for name in entries(distributions):
        if not (site / name).exists():
            (site / name).symlink_to(SHARED / name)
    return folder


def entries(distributions: set[str] | None) -> set[str]:
    """What stands in site-packages, without the checkout that is installed there."""
    if distributions is None:
        names = {path.name for path in SHARED.iterdir()}
    else:
        files = [file for name in distributions for file in distribution(name).files or []]
        names = {PurePosixPath(file).parts[0] for file in files}
    return {name for name in names if not name.startswith(("..", "__", "pairtune")) and not name.endswith(".pth")}


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``pip install pairtune`` makes it."""
    return environment(tmp_path_factory.mktemp("client"), wheel, installed_with(PROJECT["dependencies"]))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def variables(**given: str) -> dict[str, str]:
    stored = {name: value for name, value in os.environ.items() if not name.startswith(("PAIRTUNE_", "PYTHON"))}
    return stored | given


def pairtune(installed: Path, folder: Path, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "bin" / "pairtune"), *arguments]
    return subprocess.run(command, cwd=folder, env=variables(**given), capture_output=True, text=True)


def test_the_wheel_holds_what_the_code_reads_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    (info,) = {name.partition("/")[0] for name in names} - packages
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    assert {f"{package}/py.typed" for package in packages} <= names
    expected = {"store/bases.toml", "migrations/script.py.mako"}
    for folder in ("migrations/versions", "demo/base/emoji-xl", "research/results", "demo/emoji/scorers"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        expected |= {path.relative_to(ROOT).as_posix() for path in files}
    assert expected - names == set()
    assert wheel.stat().st_size < 30 * MEBI


def test_a_client_has_no_torch_and_prints_its_version(client: Path, elsewhere: Path) -> None:
    assert pairtune(client, elsewhere, "--help").returncode == 0
    assert pairtune(client, elsewhere, "--version").stdout == f"pairtune {PROJECT['version']}\n"
    for module in ("torch", "sqlalchemy", "fastapi"):
        tried = subprocess.run([client / "bin" / "python", "-c", f"import {module}"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in tried.stderr, module


def test_a_client_works_with_a_server(client: Path, elsewhere: Path, live: Live) -> None:
    server = {"PAIRTUNE_URL": live.url, "PAIRTUNE_API_KEY": live.tenant.api_key}
    models = pairtune(client, elsewhere, "models", "list", "--json", **server)
    assert [one["owned_by"] for one in json.loads(models.stdout)], models.stderr
    jobs = pairtune(client, elsewhere, "jobs", "--json", **server)
    assert jobs.returncode == 0, jobs.stderr
    (elsewhere / "pairs.zip").write_bytes(b"no archive")
    refused = pairtune(client, elsewhere, "train", "pairs.zip", "--base", "unheard-of", **server)
    assert refused.returncode == 4, refused.stderr


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (["up"], "pairtune[embedded,server,trainer]"),
        (["keys", "list"], "pairtune[worker]"),
        (["doctor"], "pairtune[worker]"),
    ],
)
def test_a_client_says_which_extra_a_command_needs(
    client: Path, elsewhere: Path, command: list[str], needed: str
) -> None:
    tried = pairtune(client, elsewhere, *command)
    said = " ".join(tried.stderr.split())
    assert tried.returncode == 1
    assert said.startswith("This command needs ")
    assert said.endswith(f": run pip install '{needed}'.")


def test_a_client_does_not_edit_the_list_of_the_package(client: Path, elsewhere: Path) -> None:
    tried = pairtune(client, elsewhere, "models", "remove", "emoji-xl")
    assert tried.returncode == 1
    assert "set PAIRTUNE_BASES_FILE to a list of your own." in " ".join(tried.stderr.split())
    own = elsewhere / "bases.toml"
    own.write_text("")
    options = ["--family", "sdxl", "--source", str(ROOT / "demo" / "base" / "emoji-xl")]
    assert pairtune(client, elsewhere, "models", "add", "mine", *options, PAIRTUNE_BASES_FILE=str(own)).returncode == 0
    assert 'name = "mine"' in own.read_text()


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter, where root runs the tests; pytest closes its own to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_up_serves_the_packaged_base_from_an_empty_folder(wheel: Path, public: Path, tmp_path: Path) -> None:
    whole = environment(tmp_path / "whole", wheel, None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    output = tmp_path / "output"
    with output.open("wb") as stream:
        command = [str(whole / "bin" / "pairtune"), "up", "--json"]
        given = variables(PAIRTUNE_PORT=port)
        up = subprocess.Popen(command, cwd=public, env=given, stdout=stream, stderr=subprocess.STDOUT)
    try:
        until(lambda: '"key_file"' in output.read_text() or up.poll() is not None, seconds=READY)
        assert up.poll() is None, output.read_text()
        models = pairtune(whole, public, "models", "list", "--json", PAIRTUNE_PORT=port)
        assert [one["id"] for one in json.loads(models.stdout)] == ["emoji-xl"], models.stderr
    finally:
        up.send_signal(signal.SIGINT)
        ended = up.wait(60)
    assert ended == 0, output.read_text()
    assert [path.name for path in public.iterdir()] == ["var"]
