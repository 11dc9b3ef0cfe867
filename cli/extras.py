"""The extras that a command needs and an installation may lack. Without any, the package is a client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires

from cli.errors import CommandError

PACKAGE = "pairtune"
NAMED = 3  # as many as a sentence holds


class MissingExtra(CommandError):
    """``absent``: the distributions that are not installed, by the extra that brings them."""

    def __init__(self, absent: dict[str, list[str]]) -> None:
        names = list(dict.fromkeys(name for names in absent.values() for name in names))
        more = f" and {len(names) - NAMED} more packages" if len(names) > NAMED else ""
        needed = ", ".join(names[:NAMED]) + more
        super().__init__(f"This command needs {needed}: run pip install '{PACKAGE}[{','.join(absent)}]'.")


def require_extras(*extras: str) -> None:
    """Raises MissingExtra unless every distribution of these extras is installed."""
    requirements = requires(PACKAGE) or []
    absent = {extra: [name for name in distributions(requirements, extra) if not _installed(name)] for extra in extras}
    if any(absent.values()):
        raise MissingExtra({extra: names for extra, names in absent.items() if names})


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """The extra that would have brought the module; None if none does, as where a module of our own is missing."""
    name = _normalised((error.name or "").partition(".")[0])
    requirements = requires(PACKAGE) or []
    for extra in dict.fromkeys(re.findall(r"""extra == ["']([\w-]+)["']""", "\n".join(requirements))):
        if name in distributions(requirements, extra, nested=False):
            return MissingExtra({extra: [name]})
    return None


def distributions(requirements: Iterable[str], extra: str, *, nested: bool = True) -> Iterator[str]:
    """The extra's distributions, as ``requirements`` of a package's metadata list them, and those of extras in it.

    A requirement reads ``celery[redis]; extra == "worker"`` or ``pairtune[worker]; extra == "server"``.
    """
    requirements = list(requirements)
    for requirement in requirements:
        wanted, _, marker = requirement.partition(";")
        if not re.search(rf"""extra == ["']{re.escape(extra)}["']""", marker):
            continue
        parts = re.match(r"([\w.-]+)\s*(?:\[([^\]]*)\])?", wanted)
        if parts is None:
            continue
        if _normalised(parts[1]) != PACKAGE:
            yield _normalised(parts[1])
        elif nested:
            for inner in parts[2].split(","):
                yield from distributions(requirements, inner.strip())


def _normalised(name: str) -> str:
    """As in PEP 503. Most modules that we import have their distribution's name by this rule."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
