"""What pip installs into an image: ``python docker/image_requirements.py api|worker [--unlocked]``.

The image's extras stand in IMAGES, their distributions in pyproject.toml. Printed are their entries of
requirements.lock, with hashes, and those of everything that they need, found by the lock's ``via`` comments: one lock
pins both images. ``--unlocked`` prints what the extras ask for and the lock leaves out, which is torch.
Runs before anything is installed.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {"api": ("server",), "worker": ("worker", "trainer")}


def direct_requirements(project: Mapping[str, Any], extras: Sequence[str]) -> list[str]:
    """The project's dependencies without an extra and those of ``extras``, also of the extras that these name.

    ``project`` is pyproject.toml's table. Raises KeyError for an extra that there is not.
    """
    found = list(project["dependencies"])
    waiting = list(extras)
    for extra in waiting:
        for requirement in project["optional-dependencies"][extra]:
            if distribution(requirement) == project["name"]:
                waiting += [one for one in _extras(requirement) if one not in waiting]
            else:
                found.append(requirement)
    return list(dict.fromkeys(found))


def locked_entries(lock: str) -> dict[str, str]:
    """Each distribution's lines in the lock: its version, its hashes, and who needs it.

    A distribution has several entries where platforms or versions of Python take different versions of it.
    """
    entries: dict[str, str] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]:
        entries[distribution(entry)] = entries.get(distribution(entry), "") + entry
    return entries


def with_needed(names: Sequence[str], entries: Mapping[str, str]) -> Iterator[str]:
    """``names`` and all that they need, in the lock's order; also what only others' extras of them need."""
    needed = set(names)
    while more := {name for name, entry in entries.items() if _needed_by(entry) & needed} - needed:
        needed |= more
    return (name for name in entries if name in needed)


def _needed_by(entry: str) -> set[str]:
    comments = re.findall(r"^ *#(?: +via)?(?: +([A-Za-z0-9][A-Za-z0-9._-]*))?", entry, flags=re.MULTILINE)
    return {distribution(name) for name in comments if name}


def distribution(requirement: str) -> str:
    """``psycopg[binary]>=3`` -> ``psycopg``, normalised as in PEP 503."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _extras(requirement: str) -> list[str]:
    """``psycopg[binary,pool]`` -> ``["binary", "pool"]``."""
    return [one.strip() for one in re.findall(r"\[(.*?)\]", requirement)[0].split(",")]


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in IMAGES or arguments[1:] not in ([], ["--unlocked"]):
        print(f"usage: python docker/image_requirements.py {'|'.join(IMAGES)} [--unlocked]", file=sys.stderr)
        return 2
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    direct = direct_requirements(pyproject["project"], IMAGES[arguments[0]]) + pyproject["build-system"]["requires"]
    entries = locked_entries((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    unlocked = [one for one in direct if distribution(one) not in entries]
    if arguments[1:]:
        print("\n".join(unlocked))
    else:
        # What an unlocked one needs is locked, and named as needed by it.
        print("".join(entries[name] for name in with_needed([distribution(one) for one in direct], entries)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
