"""What an archive lists, before anything is unpacked: which entries are accepted, and under which name.

Entries are never written under the names they bring, so names serve lookup only; unsafe ones are refused all the
same, because an archive that carries them was not made by packing a folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from intake.errors import ArchiveError
from intake.findings import Code, Finding, printable
from intake.limits import Limits

Kind = Literal["file", "folder", "symbolic link", "hard link", "device or special file", "sparse file"]

_DRIVE = re.compile(r"^[A-Za-z]:")
_GENERATED_FOLDER = re.compile(
    r"\.|[$~]|@(?:ea|syno|tmp|recycle|recently|__)|#(?:recycle|snapshot)|__(?:MACOSX|\w+__)$"
    r"|(?:System Volume Information|lost\+found|RECYCLER)$",
    re.IGNORECASE,
)
_GENERATED_FILE = re.compile(
    r"\.|@Syno|~\$|.*(?:~|\.(?:bak|swp|swo|tmp|temp|part|partial|crdownload|lock))$"
    r"|(?:e?h?thumbs(?:_\w+)?\.db|desktop\.ini|folder\.htt|icon\r)$",
    re.IGNORECASE | re.DOTALL,
)
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True)
class Entry:
    """One entry as listed: ``size`` is the unpacked length in bytes that the archive declares.

    ``read`` returns exactly ``size`` bytes or raises ArchiveError. ``start`` returns the first bytes, at least as many
    as it is asked for if there are as many, and reads little more; without it the whole is read.
    """

    name: str
    kind: Kind
    size: int
    read: Callable[[], bytes]
    start: Callable[[int], bytes] | None = None

    def head(self, size: int) -> bytes:
        """The first bytes; none where they cannot be read, which ``read`` would say."""
        try:
            return (self.start(size) if self.start is not None else self.read())[:size]
        except ArchiveError:
            return b""


@dataclass(frozen=True)
class Listing:
    """An archive's files by canonical name. ``generated`` are those that systems and programs leave: a row finds them
    by their path, and nothing else does. ``unreadable`` counts such ones that cannot be used at all (links)."""

    files: dict[str, Entry] = field(default_factory=dict)
    generated: dict[str, Entry] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unreadable: int = 0


def with_slashes(entries: Sequence[Entry]) -> list[Entry]:
    """Old .NET and PowerShell pack folders with backslashes: taken as that where the whole archive has no slash."""
    if any("/" in entry.name for entry in entries) or not any("\\" in entry.name for entry in entries):
        return list(entries)
    return [_with_slashes(entry) for entry in entries]


def _with_slashes(entry: Entry) -> Entry:
    kind: Kind = "folder" if entry.name.endswith("\\") and entry.size == 0 else entry.kind
    return replace(entry, name=entry.name.replace("\\", "/"), kind=kind)


def accept_entries(entries: Iterable[Entry], limits: Limits) -> Listing:
    """The archive's files, and a finding for every entry that is refused."""
    accepted: dict[str, Entry] = {}
    generated: dict[str, Entry] = {}
    taken: dict[str, str] = {}
    findings: list[Finding] = []
    unreadable = 0
    for entry in entries:
        if not is_generated(entry.name) and _repeats(entry, accepted):
            continue
        error = _fault(entry, taken, limits)
        if is_generated(entry.name):
            if error is not None:
                unreadable += 1
            elif entry.kind == "file":
                generated[canonical(entry.name)] = entry
        elif error is not None:
            code, reason = error
            shown = printable(entry.name)
            findings.append(Finding(code, "error", f"{shown} {reason}, then pack the folder again.", shown))
        elif entry.kind == "file":
            name = canonical(entry.name)
            accepted[name] = entry
            taken[collision_key(name)] = entry.name
    return Listing(accepted, generated, findings, unreadable)


def check_total(unpacked: int, packed: int, limits: Limits) -> None:
    """Raises ArchiveError when ``unpacked`` bytes are too many, or too many for ``packed`` bytes."""
    if unpacked > limits.archive_bytes:
        raise ArchiveError(
            "archive_limits", f"unpacks to more than {limits.archive_bytes:,} bytes; upload it in several parts"
        )
    if unpacked > limits.compression_ratio_from and unpacked > limits.compression_ratio * packed:
        raise ArchiveError(
            "archive_limits",
            f"unpacks to more than {limits.compression_ratio} times its size, as no archive of images does;"
            " pack the images again",
        )


def check_count(count: int, limits: Limits) -> None:
    if count > limits.archive_entries:
        raise ArchiveError(
            "archive_limits", f"holds more than {limits.archive_entries:,} entries; upload it in several parts"
        )


def canonical(name: str) -> str:
    """The name in Unicode NFC without ``./`` and doubled slashes: macOS packs NFD names, tar a leading ``./``."""
    parts = unicodedata.normalize("NFC", name).split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def collision_key(name: str) -> str:
    """Equal for names that a case-insensitive or normalising file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_generated(name: str) -> bool:
    """What systems, editors, file managers and photo programs leave: hidden files and folders (``.git``, ``._fox.png``,
    ``.ipynb_checkpoints``), what their makers mark in other ways (``@eaDir``, ``#recycle``, ``$RECYCLE.BIN``,
    ``__MACOSX``, ``fox.png~``, ``~$fox.docx``), and a few files of fixed names."""
    *folders, last = [part for part in name.split("/") if part not in ("", ".", "..")] or [""]
    return any(map(_GENERATED_FOLDER.match, folders)) or bool(_GENERATED_FILE.match(last))


def _repeats(entry: Entry, accepted: Mapping[str, Entry]) -> bool:
    """Whether the same file stood in the archive before, under the same name: packed twice, it is one file."""
    before = accepted.get(canonical(entry.name)) if entry.kind == "file" else None
    if before is None or before.size != entry.size:
        return False
    try:
        return before.read() == entry.read()
    except ArchiveError:
        return False


def _fault(entry: Entry, taken: Mapping[str, str], limits: Limits) -> tuple[Code, str] | None:
    """The code, and what is wrong with the entry and what to do about it."""
    reason = _name_fault(entry.name, limits)
    if reason is not None:
        return "archive_path", f"{reason}; rename it"
    if entry.kind == "folder":
        return None
    if entry.kind == "sparse file":
        return "archive_entry_type", "is stored with holes; pack it with tar without --sparse"
    if entry.kind != "file":
        return "archive_entry_type", f"is a {entry.kind}; put a regular file in its place"
    name = canonical(entry.name)
    if not name:
        return "archive_path", "has an empty path; rename it"
    if name.lower().endswith(_ARCHIVE_SUFFIXES):
        return "archive_limits", "is an archive inside the archive; unpack or remove it"
    other = taken.get(collision_key(name))
    if other == entry.name:
        return "archive_path", "is twice in the archive, with different contents; keep one"
    if other is not None:
        return "archive_path", f"differs from {printable(other)} at most in case or Unicode form; rename one of them"
    return None


def _name_fault(name: str, limits: Limits) -> str | None:
    if len(name) > limits.path_characters:
        return f"has a path of more than {limits.path_characters:,} characters"
    if any("\udc80" <= character <= "\udcff" for character in name):
        return "has a path in an unknown encoding (UTF-8 is read on every system)"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "has a NUL, a control character or an invalid character in its path"
    if "\\" in name:
        return "has a backslash in its path (folders are separated by /)"
    if name.startswith("/") or _DRIVE.match(name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has a path that leaves the archive (..)"
    return None
