"""Archives without a table: pairs by the names of folders and files, or pictures of a subject.

``chosen`` and ``rejected``, or ``w`` and ``l``, are what SimpleTuner and kohya's trainers take as folders; others end
the names of files so (``fox_chosen.png``). What the names call rejected is paired or refused, never taken as chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from intake.archives.entries import Entry
from intake.errors import IntakeError, MetadataError
from intake.findings import Finding, counted, printable
from intake.formats.folders.captions import Captions
from intake.formats.folders.names import (
    Side,
    file_mark,
    folder_mark,
    joined,
    repeated,
    set_aside,
    stem,
    suffix,
    unjudged,
    without_side,
)
from intake.formats.judgement import Judgement, JudgementSource, row_finding
from intake.images.signatures import HEAD, is_picture
from intake.limits import Limits
from intake.report import LeftOut

# By these a file says that it is meant as a picture, whatever its bytes are. The second line cannot be used.
SUFFIXES = (
    "png", "jpg", "jpeg", "webp",
    "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jxl", "svg",
)  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """The archive's pictures: those to learn, and the others by the reason."""

    files: Mapping[str, Entry]
    paths: list[str]
    aside: dict[str, LeftOut]


def is_image(path: str, entry: Entry) -> bool:
    """By its suffix, or by its bytes, whatever it is called."""
    return suffix(path) in SUFFIXES or is_picture(entry.head(HEAD), entry.size)


def pictures_of(files: Mapping[str, Entry]) -> Pictures:
    found = sorted(path for path, entry in files.items() if is_image(path, entry))
    aside = set_aside(found)
    return Pictures(files, [path for path in found if path not in aside], aside)


@dataclass
class _NamedPair:
    """The pictures that make one pair, by side; ``None`` are those whose name says none."""

    scope: str  # the folder that holds the two folders, or the two files
    sides: dict[Side | None, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def whole(self) -> bool:
        return bool(self.sides.get("chosen") and self.sides.get("rejected"))


@dataclass(frozen=True)
class _Marked:
    path: str
    side: Side
    common_name: str
    scope: str
    certain: bool
    beside_plain: bool = False


def marked_in(paths: Collection[str]) -> list[_Marked]:
    """The pictures whose names say a side."""
    plain = {_common_name([*folders, joined(stem(last))]) for *folders, last in (path.split("/") for path in paths)}
    return _confirmed([found for path in paths if (found := _marked(path)) is not None], plain)


def pairs_by_name(pictures: Pictures, limits: Limits, prompt: str | None) -> JudgementSource | None:
    """None where no name says a side. Raises MetadataError where names say one side alone: what is rejected must not
    be taken as chosen, nor the other way round."""
    marked = marked_in(pictures.paths)
    if not marked:
        _check_unjudged(pictures.paths)
        return None
    named = _named_pairs(marked, pictures.paths)
    scopes: dict[str, set[Side | None]] = defaultdict(set)
    for pair in named.values():
        scopes[pair.scope] |= pair.sides.keys()
    alone = next((scope for scope, sides in scopes.items() if len(sides) == 1), None)
    if alone is not None:
        [side] = scopes[alone]
        other = "chosen" if side == "rejected" else "rejected"
        reason = (
            f"has images that are called {side}, and none that is called {other} "
            f"({printable(alone) or 'at the top of the archive'}); add the {other} ones, or rename the {side} ones"
        )
        raise MetadataError("metadata_missing", reason)
    captions = Captions(pictures.files, pictures.paths, limits, prompt)
    taken = {path for pair in named.values() for paths in pair.sides.values() for path in paths}
    aside = pictures.aside
    aside |= {path: "unpaired" for path in pictures.paths if path not in taken}
    judgements = _pairs(named, captions, aside)
    return JudgementSource(
        "archive/two-folders", "the folders", judgements, len(named), used=captions.used, aside=aside
    )


def subject_pictures(pictures: Pictures, limits: Limits, prompt: str | None) -> JudgementSource | None:
    """None where the archive holds no pictures, or none of them has a prompt."""
    captions = Captions(pictures.files, pictures.paths, limits, prompt)
    if not pictures.paths or not captions.any_of(pictures.paths):
        return None
    judgements = _subject(pictures, captions)
    return JudgementSource(
        "archive/image-folder",
        "the folder",
        judgements,
        len(pictures.paths),
        used=captions.used,
        aside=pictures.aside,
    )


def _marked(path: str) -> _Marked | None:
    """The side that the path says: its folders before its name, and of these what is certain before what is not."""
    *folders, last = path.split("/")
    name = stem(last)
    marks = [(index, mark) for index, folder in enumerate(folders) if (mark := folder_mark(folder)) is not None]
    certain = [(index, mark) for index, mark in marks if mark.certain]
    index, mark = next(iter(certain or marks), (len(folders), None))
    if mark is None:
        of_file = file_mark(name)
        if of_file is None:
            return None
        common_name = _common_name([*folders, of_file.rest])
        return _Marked(path, of_file.side, common_name, "/".join(folders), of_file.certain, of_file.beside_plain)
    common_name = _common_name([*folders[:index], mark.rest, *folders[index + 1 :], name])
    return _Marked(path, mark.side, common_name, "/".join(folders[:index]), mark.certain)


def _common_name(parts: list[str]) -> str:
    return "/".join(part for part in parts if part).casefold()


def _confirmed(marked: list[_Marked], plain: Collection[str]) -> list[_Marked]:
    """Without what is a side only together with its opposite, where that is nowhere in the same folder. ``plain`` are
    the pictures as they are called, which may be what one that is called bad is worse than."""
    sides: dict[str, set[Side]] = defaultdict(set)  # of the pairs in each scope
    at: dict[tuple[str, str], set[Side]] = defaultdict(set)
    for one in marked:
        at[one.scope, one.common_name].add(one.side)
        if one.certain:
            sides[one.scope].add(one.side)
    for (scope, _), found in at.items():
        if len(found) == 2:
            sides[scope] |= found
    return [
        one
        for one in marked
        if one.certain or len(sides[one.scope] | {one.side}) == 2 or (one.beside_plain and one.common_name in plain)
    ]


def _named_pairs(marked: list[_Marked], paths: Collection[str]) -> dict[str, _NamedPair]:
    """The pairs by what their images are called together, in this order."""
    found: dict[str, _NamedPair] = {}
    for one in marked:
        found.setdefault(one.common_name, _NamedPair(one.scope)).sides[one.side].append(one.path)
    _match_names_that_repeat_their_side(found)
    sided = {one.path for one in marked}
    for path in paths:
        *folders, last = path.split("/")
        pair = found.get(_common_name([*folders, joined(stem(last))])) if path not in sided else None
        if pair is not None and "chosen" not in pair.sides:  # fox.png beside fox_rejected.png
            pair.sides[None].append(path)
    return dict(sorted(found.items()))


def _match_names_that_repeat_their_side(named: dict[str, _NamedPair]) -> None:
    """``chosen/fox_chosen.png`` and ``rejected/fox_rejected.png`` are a pair as well."""
    for key in [key for key, pair in named.items() if not pair.whole]:
        pair = named[key]
        side = next(iter(pair.sides))
        folder, slash, name = key.rpartition("/")
        shorter = f"{folder}{slash}{without_side(name, side)}" if side is not None else key
        if shorter != key:
            other = named.setdefault(shorter, _NamedPair(pair.scope))
            other.sides[side] += pair.sides[side]
            del named[key]


def _pairs(
    named: Mapping[str, _NamedPair], captions: Captions, aside: dict[str, LeftOut]
) -> Iterator[Judgement | Finding]:
    file = "the folders"
    for number, (name, pair) in enumerate(named.items(), start=1):
        item = _pair(number, name, pair, captions)
        if isinstance(item, Finding):
            aside.update((path, "dropped") for paths in pair.sides.values() for path in paths)
        yield item
    yield from captions.findings(file)
    yield from _left_out(file, aside)


def _pair(number: int, name: str, pair: _NamedPair, captions: Captions) -> Judgement | Finding:
    sides = pair.sides
    chosen, rejected = sides.get("chosen") or sides.get(None) or [], sides.get("rejected") or []
    for paths in (chosen, rejected):
        if len(paths) > 1:
            both = printable(" and ".join(paths[:2]))
            reason = f"{both} have one name, so that it is open which is meant; rename one"
            return row_finding("the folders", number, reason)
    if not (chosen and rejected):
        [alone] = chosen or rejected
        side = "chosen" if chosen else "rejected"
        reason = (
            f"{printable(alone)} is called {side} and has no image of its name to go with; add it, or remove this one"
        )
        return row_finding("the folders", number, reason, "image_missing")
    last = name.rpartition("/")[2]
    shared = f"{pair.scope}/{last}" if pair.scope else last
    return _captioned(number, "the folders", captions, [chosen[0], rejected[0]], [shared], {"rejected": rejected[0]})


def _subject(pictures: Pictures, captions: Captions) -> Iterator[Judgement | Finding]:
    file = "the folder"
    weights = _weights(pictures.paths)
    for number, path in enumerate(pictures.paths, start=1):
        weight = {"weight": weights[path]} if path in weights else {}
        item = _captioned(number, file, captions, [path], [], weight)
        if isinstance(item, Finding):
            pictures.aside[path] = "dropped"
        yield item
    yield from captions.findings(file)
    yield from _left_out(file, pictures.aside)


def _weights(paths: Collection[str]) -> dict[str, float]:
    """How often pictures count by the numbers of their folders, the rarest once; none where all count alike."""
    counts = {path: found.count if (found := repeated(path)) is not None else 1 for path in paths}
    least = min(counts.values())
    if least == 0 or len(set(counts.values())) == 1:
        return {}
    return {path: count / least for path, count in counts.items()}


def _captioned(
    number: int, file: str, captions: Captions, paths: list[str], names: list[str], more: Mapping[str, object]
) -> Judgement | Finding:
    path = paths[0]
    try:
        prompt = captions.of(paths, names)
    except IntakeError as error:
        return row_finding(file, number, f"the caption of {printable(path)} {error.reason}", error.code)
    if prompt is None:
        reason = (
            f"{printable(path)} has no caption; add a text file of its name, name the folder as in '10_a prompt', or "
            "give the upload a prompt for images without one"
        )
        return row_finding(file, number, reason, "prompt_empty")
    return Judgement(number, {"prompt": prompt, "chosen": path, **more})


def _left_out(file: str, aside: Mapping[str, LeftOut]) -> Iterator[Finding]:
    """One warning for each reason."""
    for reason, why in _WHY.items():
        paths = [path for path, found in aside.items() if found == reason]
        if paths:
            images = counted(len(paths), "image")
            text = f"{file}: {images} left out (the first is {printable(paths[0])}): {why}."
            yield Finding("image_unused", "warning", text, file)


_WHY: Mapping[LeftOut, str] = {
    "mask": "by the name a mask or a conditioning image of another, which training does not use",
    "regularisation": (
        "by the name a regularisation or class image, which nobody prefers; a job of dreambooth generates its own"
    ),
    "unpaired": "by the name neither chosen nor rejected, beside images that are",
}


def _check_unjudged(paths: Collection[str]) -> None:
    """Raises MetadataError where images are called the sides of a comparison, a and b or left and right: two folders of
    the same names, or the only two files of every folder."""
    inside: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # by folder, by folder in it
    files: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        *folders, name = stem(path).split("/")
        files["/".join(folders)].add(name.casefold())
        if folders:
            inside["/".join(folders[:-1])][folders[-1]].add(name.casefold())
    for parent, names in inside.items():
        both = unjudged(names, folders=True)
        if both is not None and names[both[0]] & names[both[1]]:
            raise _unjudged(" and ".join(f"{parent}/{name}".lstrip("/") for name in both), "folders")
    if files and all(len(names) == 2 and unjudged(names, folders=False) for names in files.values()):
        raise _unjudged(" and ".join(sorted(next(iter(files.values())))), "files")


def _unjudged(names: str, what: str) -> MetadataError:
    return MetadataError(
        "metadata_missing",
        f"has images that were compared, by their names ({printable(names)}), and nothing says which are preferred; "
        f"call the {what} chosen and rejected, or add metadata.jsonl",
    )
