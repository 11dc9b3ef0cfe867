"""Finding the file that a row means by a path."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from intake.archives.entries import Entry, canonical, collision_key
from intake.findings import printable

# What a row's path may mean: where it leads; else the one file of its name, wherever it lies; or also the one that
# another system stored under such a name.
Search = Literal["path", "name", "stored name"]
_STORED = re.compile(r"^[0-9a-f]{8}-(?P<name>.+)$")


class Lookup:
    """The archive's files by the paths that rows give: beside the table, else from the top."""

    def __init__(self, files: Mapping[str, Entry], folder: str = "", hidden: Mapping[str, Entry] | None = None) -> None:
        """``hidden`` are files that only their whole path finds."""
        self._files, self._hidden = files, hidden or {}
        self._prefixes = (f"{folder}/", "") if folder else ("",)
        self._meant: dict[str, str] = {}  # which stored name a file of the archive was taken for

    def find(self, path: str, search: Search = "path", folder: str = "") -> Entry | None:
        """The file that is meant; ``folder`` is one where paths may start, too ("train/")."""
        name = canonical(path.replace("\\", "/"))  # no entry has a backslash in its name
        paths = [f"{prefix}{start}{name}" for start in ("", folder) for prefix in self._prefixes]
        found = (files[path] for files in (self._files, self._hidden) for path in paths if path in files)
        entry = next(found, None)
        return self._named(name.rpartition("/")[2], search) if entry is None and search != "path" else entry

    def _named(self, name: str, search: Search) -> Entry | None:
        """A stored name is that of a file before Label Studio stored it as ``1a2b3c4d-fox.png``, unless two stored
        files had it."""
        if name in self._by_name or search == "name":
            return self._only(name)
        stored = _STORED.match(name)
        if stored is None or self._meant.setdefault(stored["name"], name) != name:
            return None
        return self._only(stored["name"])

    def _only(self, name: str) -> Entry | None:
        namesakes = self._by_name.get(name, [])
        return namesakes[0] if len(namesakes) == 1 else None

    def hint(self, path: str) -> str:
        """What to do about a path that names no file: a near miss in case or slashes is pointed out."""
        name = canonical(path.replace("\\", "/"))
        near = (self._near.get(collision_key(f"{prefix}{name}")) for prefix in self._prefixes)
        meant = next((name for name in near if name is not None), None)
        return f"did you mean {printable(meant)}?" if meant else "add the file or correct the path."

    @cached_property
    def _near(self) -> dict[str, str]:
        return {collision_key(name): name for name in self._files}

    @cached_property
    def _by_name(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = defaultdict(list)
        for name, entry in self._files.items():
            found[name.rpartition("/")[2]].append(entry)
        return found
