"""Archives without a table: two folders of same-named images, or folders of images of a subject.

Two folders are what SimpleTuner and kohya's trainers take: ``chosen`` and ``rejected``, or ``w`` and ``l``. A caption
is the text file of the image's name. A folder called ``10_zibu creature`` gives its images the prompt "zibu creature",
as kohya's trainers read it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, printable
from intake.formats.judgement import Judgement, JudgementSource, row_finding
from intake.limits import Limits

CHOSEN, REJECTED = ("chosen", "w", "win", "winner", "preferred"), ("rejected", "l", "lose", "loser", "dispreferred")
# The second line cannot be used, but is meant: the image says so itself.
IMAGES = (
    "png", "jpg", "jpeg", "webp",
    "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jxl", "svg",
)  # fmt: skip
_REPEATED = re.compile(r"^\d{1,4}_(?=.*[^\W\d_])(?P<prompt>.+)$")

Stem = str  # a path without its suffix
Sides = tuple[dict[Stem, list[str]], dict[Stem, list[str]]]  # paths of chosen and of rejected images


@dataclass(frozen=True)
class _Captions:
    """Text files by the path of the image without its suffix."""

    files: Mapping[str, Entry]
    limits: Limits
    otherwise: str | None  # the prompt of images that come without one

    def has_caption(self, stem: Stem) -> bool:
        return f"{stem}.txt" in self.files or bool(self.otherwise or _folder_prompt(stem))

    def of(self, stems: list[Stem]) -> str | None:
        """Of the first that has one. Raises IntakeError."""
        entry = next((self.files[f"{stem}.txt"] for stem in stems if f"{stem}.txt" in self.files), None)
        if entry is None:
            return self.otherwise or _folder_prompt(stems[0])
        if entry.size > 4 * self.limits.prompt_characters:
            raise IntakeError(
                "prompt_too_long", f"has more than {self.limits.prompt_characters:,} characters; shorten it"
            )
        try:
            text = " ".join(entry.read().decode("utf-8-sig").split())
        except UnicodeDecodeError as error:
            raise IntakeError("row_invalid", "is not UTF-8; save it as UTF-8") from error
        if not text:
            raise IntakeError("prompt_empty", "is empty; write what the image shows")
        return text


def two_folders(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> JudgementSource | None:
    """None where no folder of the archive holds two such folders. Raises MetadataError where one stands alone:
    its images must not be taken for chosen ones."""
    parents: dict[str, Sides] = defaultdict(lambda: (defaultdict(list), defaultdict(list)))
    for name in sorted(files):
        found = _side(name) if _suffix(name) in IMAGES else None
        if found is not None:
            parent, side, rest = found
            parents[parent][side][rest].append(name)
    if not parents:
        return None
    whole = {parent: sides for parent, sides in parents.items() if all(sides)}
    if len(whole) < len(parents):
        alone = printable(next(parent for parent in parents if parent not in whole) or "the top of the archive")
        reason = (
            f"has folders named for one side of pairs alone ({alone}); add the other, chosen or rejected, or rename"
        )
        raise MetadataError("metadata_missing", f"{reason} it")
    captions = _Captions(files, limits, prompt)
    total = sum(len(sides[0]) for sides in whole.values())
    return JudgementSource("archive/two-folders", "the folders", _paired(whole, captions), total)


def subject_folder(files: Mapping[str, Entry], limits: Limits, prompt: str | None) -> JudgementSource | None:
    """None where the archive holds no images, or none of them has a prompt."""
    images = sorted(name for name in files if _suffix(name) in IMAGES)
    captions = _Captions(files, limits, prompt)
    if not any(captions.has_caption(_stem(name)) for name in images):
        return None
    return JudgementSource("archive/image-folder", "the folder", _subject(images, captions), len(images))


def _side(name: str) -> tuple[str, int, Stem] | None:
    """The folder that holds the two, which of them the image is in, and its path from there without the suffix."""
    folders = name.split("/")[:-1]
    for depth, folder in enumerate(folders):
        for side, names in enumerate((CHOSEN, REJECTED)):
            if folder.casefold() in names:
                return "/".join(folders[:depth]), side, _stem("/".join(name.split("/")[depth + 1 :]))
    return None


def _paired(parents: Mapping[str, Sides], captions: _Captions) -> Iterator[Judgement | Finding]:
    number = 0
    for chosen, rejected in parents.values():
        for stem in sorted({*chosen, *rejected}):
            number += 1
            yield _pair(number, chosen.get(stem, []), rejected.get(stem, []), captions)


def _pair(number: int, chosen: list[str], rejected: list[str], captions: _Captions) -> Judgement | Finding:
    for paths in (chosen, rejected):
        if len(paths) > 1:
            both = printable(" and ".join(paths[:2]))
            return row_finding(
                "the folders", number, f"{both} have one name, so that it is open which is meant; rename one"
            )
    if not (chosen and rejected):
        [alone] = chosen or rejected
        reason = f"{printable(alone)} has no image of its name in the other folder; add it, or remove this one"
        return row_finding("the folders", number, reason, "image_missing")
    stems = [_stem(chosen[0]), _stem(rejected[0])]
    return _captioned(number, "the folders", captions, chosen[0], stems, {"rejected": rejected[0]})


def _subject(images: list[str], captions: _Captions) -> Iterator[Judgement | Finding]:
    for number, path in enumerate(images, start=1):
        yield _captioned(number, "the folder", captions, path, [_stem(path)], {})


def _captioned(
    number: int, file: str, captions: _Captions, path: str, stems: list[Stem], more: Mapping[str, str]
) -> Judgement | Finding:
    try:
        prompt = captions.of(stems)
    except IntakeError as error:
        return row_finding(file, number, f"the caption of {printable(path)} {error.reason}", error.code)
    if prompt is None:
        reason = (
            f"{printable(path)} has no caption; add a text file of its name, name the folder as in '10_a prompt', or "
            "give the upload a prompt for images without one"
        )
        return row_finding(file, number, reason, "prompt_empty")
    return Judgement(number, {"prompt": prompt, "chosen": path, **more})


def _folder_prompt(stem: Stem) -> str | None:
    found = _REPEATED.match(stem.rpartition("/")[0].rpartition("/")[2])
    return found["prompt"].replace("_", " ").strip() if found else None


def _stem(name: str) -> Stem:
    return name[: name.rindex(".")]


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    return last.rpartition(".")[2].lower() if "." in last else ""
