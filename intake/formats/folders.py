"""Archives without a table: two folders of same-named images, or one folder of images of a subject.

Two folders are what SimpleTuner and kohya's trainers take: ``chosen`` and ``rejected``, or ``w`` and ``l``. A caption
is the text file of the image's name. A folder called ``10_zibu creature`` gives its images the prompt "zibu creature",
as kohya's trainers read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from intake.entries import Entry
from intake.errors import Refused
from intake.findings import Finding, printable
from intake.formats.judgement import Judgement, Source, refused
from intake.limits import Limits

CHOSEN, REJECTED = ("chosen", "w", "win", "winner", "preferred"), ("rejected", "l", "lose", "loser", "dispreferred")
IMAGES = ("png", "jpg", "jpeg", "webp")
_REPEATED = re.compile(r"^\d+_(?P<prompt>.+)$")


@dataclass(frozen=True)
class _Captions:
    """Text files by the path of the image without its suffix."""

    files: Mapping[str, Entry]
    limits: Limits
    otherwise: str | None  # the prompt of images that come without one

    def known(self, stem: str) -> bool:
        return f"{stem}.txt" in self.files or bool(self.otherwise or _folder_prompt(stem))

    def of(self, stems: list[str]) -> str | None:
        """Of the first that has one. Raises Refused."""
        entry = next((self.files[f"{stem}.txt"] for stem in stems if f"{stem}.txt" in self.files), None)
        if entry is None:
            return self.otherwise or _folder_prompt(stems[0])
        if entry.size > 4 * self.limits.prompt_characters:
            raise Refused("prompt_too_long", f"has more than {self.limits.prompt_characters:,} characters; shorten it")
        try:
            return " ".join(entry.read().decode("utf-8-sig").split())
        except UnicodeDecodeError as error:
            raise Refused("row_invalid", "is not UTF-8; save it as UTF-8") from error


def two_folders(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> Source | None:
    """None where the archive has no such two folders, at the top or in one folder there."""
    roots = {name.partition("/")[0] for name in files}
    for root in ["", *(f"{name}/" for name in sorted(roots) if len(roots) == 1)]:
        chosen, rejected = (_images_in(files, root, names) for names in (CHOSEN, REJECTED))
        if chosen and rejected:
            captions = _Captions(files, limits, prompt)
            return Source("archive/two-folders", "the folders", _paired(chosen, rejected, captions), len(chosen))
    return None


def subject_folder(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> Source | None:
    """None where the archive holds no images, or none of them has a prompt."""
    images = sorted(name for name in files if _suffix(name) in IMAGES)
    captions = _Captions(files, limits, prompt)
    if not any(captions.known(_stem(name)) for name in images):
        return None
    return Source("archive/image-folder", "the folder", _subject(images, captions), len(images))


def _images_in(files: Mapping[str, Entry], root: str, names: tuple[str, ...]) -> dict[str, str]:
    """Paths of the images in one of the folders, by what follows the folder, without the suffix."""
    for folder in (f"{root}{name}/" for name in names):
        found = [name for name in files if name.startswith(folder) and _suffix(name) in IMAGES]
        if found:
            return {_stem(name).removeprefix(folder): name for name in sorted(found)}
    return {}


def _paired(
    chosen: Mapping[str, str], rejected: Mapping[str, str], captions: _Captions
) -> Iterator[Judgement | Finding]:
    for number, (stem, path) in enumerate(chosen.items(), start=1):
        other = rejected.get(stem)
        if other is None:
            reason = f"{printable(path)} has no image of its name in the other folder; add it, or remove this one"
            yield refused("the folders", number, reason, "image_missing")
            continue
        yield _captioned(number, "the folders", captions, path, [_stem(path), _stem(other)], {"rejected": other})
    for number, stem in enumerate(sorted(set(rejected) - set(chosen)), start=len(chosen) + 1):
        reason = f"{printable(rejected[stem])} has no image of its name among the chosen; add it, or remove this one"
        yield refused("the folders", number, reason, "image_missing")


def _subject(images: list[str], captions: _Captions) -> Iterator[Judgement | Finding]:
    for number, path in enumerate(images, start=1):
        yield _captioned(number, "the folder", captions, path, [_stem(path)], {})


def _captioned(
    number: int, file: str, captions: _Captions, path: str, stems: list[str], more: Mapping[str, str]
) -> Judgement | Finding:
    try:
        prompt = captions.of(stems)
    except Refused as fault:
        return refused(file, number, f"the caption of {printable(path)} {fault.reason}", fault.code)
    if prompt is None:
        reason = (
            f"{printable(path)} has no caption; add a text file of its name, name the folder as in '10_a prompt', or "
            "give the upload a prompt for images without one"
        )
        return refused(file, number, reason, "prompt_empty")
    return Judgement(number, {"prompt": prompt, "chosen": path, **more})


def _folder_prompt(stem: str) -> str | None:
    found = _REPEATED.match(stem.rpartition("/")[0].rpartition("/")[2])
    return found["prompt"].replace("_", " ").strip() if found else None


def _stem(name: str) -> str:
    return name[: name.rindex(".")]


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    return last.rpartition(".")[2].lower() if "." in last else ""
