"""The captions of pictures: text beside them, as taggers and trainers write it.

Of a picture ``1.png`` the first of these that says anything is taken: ``1.txt``, ``1.caption`` and other text files of
its name, also ``1.png.txt`` and ``1.blip.txt``; ``1.json`` with a caption inside; ``captions/1.txt``; a JSON file of
captions by the names of pictures (kohya's ``meta_cap.json``). Without any of these it is ``caption.txt`` of its folder,
the folder's name (``10_zibu creature``, as kohya's trainers read it) or the prompt of the upload.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import chain

from intake.archives.entries import Entry
from intake.errors import IntakeError
from intake.findings import Finding, counted, printable
from intake.formats.folders.names import folder_mark, joined, repeated, stem, suffix
from intake.limits import MIB, Limits
from trainer.spec.same import same_prompt

_SUFFIXES = ("txt", "caption", "captions", "cap", "prompt", "prompts", "tags", "tag", "text", "desc", "description")
# Text that may have a picture's name and is no caption.
_NO_CAPTIONS = {"xmp", "aae", "md", "csv", "tsv", "log", "yaml", "yml", "toml", "ini", "cfg", "srt", "xml", "html"} | {
    "jsonl", "py", "sh", "url", "sha256", "md5", "svg",
}  # fmt: skip
_INNER = re.compile(
    r"(?:\.[a-z][a-z0-9_]*|[_-](?:captions?|prompts?|tags?|text|description))$|^(?:captions?|prompts?|tags?|text)[_-]",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"[._-]neg(?:ative)?(?:[._-]?prompt)?$", re.IGNORECASE)  # what a picture should not show
_FOLDERS = {"caption", "captions", "prompt", "prompts", "text", "texts", "txt", "tags", "descriptions"}
_OF_A_FOLDER = {"caption", "captions", "prompt", "prompts", "description"}
_KEYS = ("caption", "prompt", "text", "original_prompt", "long_caption", "description", "tags")
_BOXES = re.compile(r"(?:\d+(?:\s+[\d.eE+-]+){4,}\s*)+")  # YOLO's labels
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")
_TABLES = ("csv", "tsv", "jsonl", "json")
_TABLE_START = 4_096  # bytes of a table that are searched for names of pictures
_JSON_BYTES = 1 * MIB  # of one picture's

Found = tuple[str, str]  # a caption, and the file that it is from


class Captions:
    """``used`` are the files that captions were taken from, so far."""

    def __init__(
        self, files: Mapping[str, Entry], pictures: Collection[str], limits: Limits, otherwise: str | None
    ) -> None:
        """``otherwise`` is the prompt of pictures that come without one."""
        self.used: set[str] = set()
        self._files, self._limits, self._otherwise = files, limits, otherwise
        self._by_key: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)  # folder and name: rank, path
        self._apart: dict[str, list[str]] = defaultdict(list)  # in a folder of captions, by the path without it
        self._of_folder: dict[str, str] = {}
        self._differing = 0
        self._first_differing = ""
        self._folder_texts: dict[str, str | None] = {}
        named = {_key(stem(path)) for path in pictures} | {_key(path) for path in pictures}
        pictured = set(pictures)
        for path in sorted(files):
            if path not in pictured:
                self._index(path, named)
        self._listed = dict(self._read_lists(pictures, named))
        names = {name for _, name in named}
        self._unread_tables = [
            path
            for path in files
            if suffix(path) in _TABLES
            and path not in self.used
            and _key(stem(path)) not in named
            and self._names_pictures(path, names)
        ]

    def any_of(self, paths: Collection[str]) -> bool:
        """Whether one of these pictures has a caption, or something that stands for one."""
        return bool(self._otherwise) or any(
            path in self._listed
            or _folder_prompt(path)
            or self._folder_caption(path)
            or any(self._files_of([path], []))
            for path in paths
        )

    def of(self, paths: list[str], names: list[str]) -> str | None:
        """Of a picture, or of the pictures of a pair; ``names`` are paths that they share. Raises IntakeError."""
        found: list[Found] = []
        empty: str | None = None
        for path in self._files_of(paths, names):
            text = self._read(path)
            if text is not None:
                self.used.add(path)
                empty = empty or path
            if text:
                found.append((text, path))
        found += chain.from_iterable(self._listed.get(path, []) for path in paths)
        if not found and empty is not None:
            raise IntakeError("prompt_empty", f"({printable(empty)}) is empty; write what the image shows")
        if not found:
            return self._instead(paths)
        text, source = found[0]
        self._compare(paths[0], text, source, found[1:])
        return text

    def compare(self, prompt: str, table: str, paths: list[str]) -> None:
        """Note where the likeliest caption beside these pictures is another than the prompt that a table gives them."""
        for path in (path for path in self._files_of(paths, []) if path not in paths):
            try:
                text = self._read(path)
            except IntakeError:
                continue
            if text:
                self._compare(paths[0], prompt, table, [(text, path)])
                return
        listed = list(chain.from_iterable(self._listed.get(path, []) for path in paths))
        if paths:
            self._compare(paths[0], prompt, table, listed[:1])

    def _compare(self, picture: str, text: str, source: str, others: list[Found]) -> None:
        other = next((path for another, path in others if same_prompt(another) != same_prompt(text)), None)
        if other is not None:
            self._differing += 1
            self._first_differing = self._first_differing or (
                f"that of {printable(picture)}: {printable(source)} was taken, and {printable(other)} says another"
            )

    def disagreements(self, file: str) -> Iterator[Finding]:
        """After the last caption."""
        if self._differing:
            text = (
                f"{file}: {counted(self._differing, 'caption')} of which two sources disagree (the first is "
                f"{self._first_differing}); remove one of the two if the wrong one was taken."
            )
            yield Finding("caption_conflict", "warning", text, file)

    def findings(self, file: str) -> Iterator[Finding]:
        """After the last caption, with what was not read as one."""
        yield from self.disagreements(file)
        for path in (path for path, text in self._folder_texts.items() if text is None):
            shown = printable(path)
            text = f"{file}: {shown} is not one line and so no caption of its folder; give each image a text file."
            yield Finding("caption_conflict", "warning", text, shown)
        for path in self._unread_tables:
            shown = printable(path)
            text = (
                f"{file}: {shown} names images, but its columns are those of no format, so that it was not read; "
                "rename its columns prompt and chosen, or remove it"
            )
            yield Finding("caption_conflict", "warning", f"{text}.", shown)

    def _names_pictures(self, path: str, named: Collection[str]) -> bool:
        """Whether the start of a table that is no format's names one of the pictures: it has captions, perhaps.
        ``named`` are names without their folders."""
        cells = re.split(r"[\"',;|\t\r\n{}\[\]]+", self._files[path].head(_TABLE_START).decode("utf-8", "replace"))
        return any("." in cell and cell.casefold().rpartition("/")[2] in named for cell in map(str.strip, cells))

    def _index(self, path: str, named: set[tuple[str, str]]) -> None:
        """Note whose caption the file may be. Suffixes that are no known caption's have to be a picture's by name."""
        kind = suffix(path)
        known = kind in _SUFFIXES or kind == "json"
        key = folder, base = _key(stem(path))
        inner = folder, _INNER.sub("", base)
        if _NEGATIVE.search(base) and key not in named:
            return
        if not known and (kind in _NO_CAPTIONS or not {key, inner} & named):
            return
        rank = 100 + len(_SUFFIXES) if not known else len(_SUFFIXES) if kind == "json" else _SUFFIXES.index(kind)
        self._by_key[key].append((rank, path))
        self._by_key[folder, "\0" + joined(base)].append((rank, path))
        if inner != key and key not in named:
            self._by_key[inner].append((rank + 50, path))
            self._by_key[folder, "\0" + joined(inner[1])].append((rank + 50, path))
        parts = stem(path).split("/")
        for index, part in enumerate(parts[:-1]):
            if known and part.casefold() in _FOLDERS:
                self._apart["/".join(parts[:index] + parts[index + 1 :]).casefold()].append(path)
        if kind in _SUFFIXES and base in _OF_A_FOLDER and key not in named:
            self._of_folder.setdefault(folder, path)

    def _files_of(self, paths: list[str], names: list[str]) -> list[str]:
        """Files that may hold the caption, the likeliest first."""
        found: dict[str, None] = {}
        for path in paths:
            ranked = self._by_key.get(_key(stem(path)), []) + self._by_key.get(_key(path), [])
            found |= dict.fromkeys(file for _, file in sorted(ranked))
        for path in names:
            folder, name = _key(path)
            for key in ((folder, name), (folder, "\0" + joined(name))):
                found |= dict.fromkeys(file for _, file in sorted(self._by_key.get(key, [])))
        if self._apart:
            for path in (*map(stem, paths), *names):
                parts = path.casefold().split("/")
                for index in range(len(parts)):
                    shorter = parts[:index] + parts[index + 1 :] if index < len(parts) - 1 else parts
                    found |= dict.fromkeys(self._apart.get("/".join(shorter), []))
        return list(found)

    def _folder_caption(self, path: str) -> str | None:
        """The file that says what all pictures of the folder show, or of a folder around it."""
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if folder.casefold() in self._of_folder:
                return self._of_folder[folder.casefold()]
        return None

    def _instead(self, paths: list[str]) -> str | None:
        """For pictures that have no caption of their own."""
        for path in paths:
            file = self._folder_caption(path)
            text = self._one_line(file) if file is not None else None
            if file is not None and text:
                self.used.add(file)
                return text
        of_pair = len(paths) > 1
        prompts = (_folder_prompt(path, of_pair=of_pair) for path in paths)
        return next((prompt for prompt in prompts if prompt), self._otherwise)

    def _one_line(self, path: str) -> str | None:
        """The text of a folder's caption; a list of several is none."""
        if path not in self._folder_texts:
            lines: list[str] = []
            if self._files[path].size <= 4 * self._limits.prompt_characters:
                lines = [line for line in _decoded(self._files[path].read(), "replace").splitlines() if line.strip()]
            self._folder_texts[path] = " ".join(lines[0].split()) if len(lines) == 1 else None
        return self._folder_texts[path]

    def _read(self, path: str) -> str | None:
        """None where the file is no caption after all. Raises IntakeError."""
        entry, kind = self._files[path], suffix(path)
        known = kind in _SUFFIXES
        if kind == "json":
            return _caption_in(_object(entry, _JSON_BYTES))
        if entry.size > 4 * self._limits.prompt_characters:
            if not known:
                return None
            reason = f"({printable(path)}) has more than {self._limits.prompt_characters:,} characters; shorten it"
            raise IntakeError("prompt_too_long", reason)
        try:
            text = _decoded(entry.read())
        except UnicodeDecodeError as error:
            if not known:
                return None
            raise IntakeError("row_invalid", f"({printable(path)}) is not UTF-8; save it as UTF-8") from error
        if _BOXES.fullmatch(text) or (not known and (_BINARY.search(text) or text.lstrip()[:1] in tuple("<{["))):
            return None
        return " ".join(text.split())

    def _read_lists(
        self, pictures: Collection[str], named: Collection[tuple[str, str]]
    ) -> Iterator[tuple[str, list[Found]]]:
        """Captions by picture, of JSON objects whose keys are pictures: paths, with suffix or without, or names."""
        lists = [path for path in self._files if suffix(path) == "json" and _key(stem(path)) not in named]
        if not lists or not pictures:
            return
        by_key: dict[str, list[str]] = defaultdict(list)
        for path in pictures:
            for name in {path, stem(path), path.rpartition("/")[2], stem(path).rpartition("/")[2]}:
                by_key[name.casefold()].append(path)
        found: dict[str, list[Found]] = defaultdict(list)
        for file in lists:
            folder = file.rpartition("/")[0]
            for name, value in (_object(self._files[file], self._limits.metadata_bytes) or {}).items():
                text = value if isinstance(value, str) else _caption_in(value)
                picture = _pictured(name.replace("\\", "/").casefold(), folder.casefold(), by_key)
                if text and picture is not None:
                    found[picture].append((" ".join(text.split()), file))
                    self.used.add(file)
        yield from found.items()


def _pictured(name: str, folder: str, pictures: Mapping[str, list[str]]) -> str | None:
    """The only picture of that path: in the archive, from the list's folder, or on the machine that made the list."""
    parts = name.split("/")
    tails = ("/".join(parts[index:]) for index in range(len(parts)))
    for key in (f"{folder}/{name}" if folder else name, *tails):
        if len(meant := pictures.get(key, [])) == 1:
            return meant[0]
    return None


def _caption_in(value: object) -> str | None:
    """The caption of an object that describes one picture; tags may be a list."""
    if not isinstance(value, dict):
        return None
    for key in _KEYS:
        text = value.get(key)
        if isinstance(text, list) and text and all(isinstance(one, str) for one in text):
            text = ", ".join(text)
        if isinstance(text, str) and text.strip():
            return " ".join(text.split())
    return None


def _object(entry: Entry, max_bytes: int) -> dict[str, object] | None:
    """The file's JSON object; None for anything else."""
    if entry.size > max_bytes or not entry.head(16).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return None
    try:
        value = json.loads(entry.read().decode("utf-8-sig"))
    except (ValueError, RecursionError, IntakeError):
        return None
    return value if isinstance(value, dict) else None


def _decoded(data: bytes, errors: str = "strict") -> str:
    """Raises UnicodeDecodeError."""
    return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig", errors)


def _folder_prompt(path: str, *, of_pair: bool = False) -> str | None:
    """``10_chosen`` is a side and no prompt; ``10_fox_chosen`` of a pair is one of a fox."""
    found, mark = repeated(path), folder_mark(path.rpartition("/")[0].rpartition("/")[2])
    if found is None or (mark is not None and not mark.rest):
        return None
    return mark.rest.replace("_", " ") if mark is not None and of_pair else found.prompt


def _key(path: str) -> tuple[str, str]:
    folder, _, name = path.casefold().rpartition("/")
    return folder, name
