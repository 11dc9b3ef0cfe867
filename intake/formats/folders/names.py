"""What the names of files and folders say of a picture: its side of a pair, its split, or that it is none to learn.

A name says a side for certain ("rejected") or only together with its opposite: ``fox_good.png`` is rejected's opposite
where ``fox_bad.png`` exists, and a picture of a good fox where it does not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from intake.pairs import Split
from intake.report import LeftOut
from intake.values import SPLITS

Side = Literal["chosen", "rejected"]

# A letter may not touch the word: "unchosen" is not chosen, "chosen2" is.
_SIDE = re.compile(
    r"(?<![^\W\d_])(?:"
    r"(?P<rejected>(?:not|non|un|dis|less|least)[-_ ]?(?:choo?sen|preferr?ed|accepted|selected|picked)"
    r"|reject(?:s|ed|ions?)?|losers?|thumbs?[-_ ]?down)"
    r"|(?P<chosen>(?:(?:most|more)[-_ ]?)?preferr?ed|choo?sen|winners?|accept(?:ed)?|selected|picked|thumbs?[-_ ]?up)"
    r")(?![^\W\d_])",
    re.IGNORECASE,
)
# Photographers select and pick without a word on the others.
_ALONE_NO_SIDE = re.compile(r"(?<![^\W\d_])(?:accept(?:ed)?|selected|picked|thumbs?[-_ ]?(?:up|down))", re.IGNORECASE)
# As the whole name of a folder, or the first or last word of a file's name.
_WEAK: dict[str, Side] = {
    **dict.fromkeys(("w", "win", "wins", "winning", "good", "better", "best", "positive", "positives"), "chosen"),
    **dict.fromkeys(("pos", "like", "liked", "likes", "upvoted", "prefer"), "chosen"),
    **dict.fromkeys(("approve", "approved", "wanted"), "chosen"),
    **dict.fromkeys(("l", "lose", "loses", "losing", "bad", "worse", "worst", "negative", "negatives"), "rejected"),
    **dict.fromkeys(("neg", "dislike", "disliked", "dislikes", "downvoted", "disprefer", "rej"), "rejected"),
    **dict.fromkeys(("disapprove", "disapproved", "unapproved", "unwanted", "declined", "denied"), "rejected"),
    **dict.fromkeys(("discarded", "fail", "failed"), "rejected"),
}
# Of these one alone says nothing: as the whole name of a folder only.
_TOGETHER: dict[str, Side] = {
    **dict.fromkeys(("yes", "up", "keep", "kept", "right", "correct", "pass", "passed", "ok", "success"), "chosen"),
    **dict.fromkeys(("love", "loved", "favorite", "favorites", "favourite", "favourites", "hq", "hit"), "chosen"),
    **dict.fromkeys(("pretty", "beautiful"), "chosen"),
    **dict.fromkeys(("no", "down", "discard", "discards", "wrong", "incorrect", "ng", "failure", "deny"), "rejected"),
    **dict.fromkeys(("hate", "hated", "trash", "trashed", "deleted", "lq", "miss", "ugly"), "rejected"),
}
# Names of folders that say so even where the other folder is missing.
_CERTAIN = {"w", "l", "win", "lose", "losing", "winning", "bad", "worse", "worst", "negative", "negatives", "neg"} | {
    "dislike", "disliked", "dislikes", "downvoted", "disprefer", "loses", "rej", "disapprove", "disapproved",
    "unapproved", "unwanted", "declined", "denied", "discarded",
}  # fmt: skip
# At the end of a file's name these say so of the image without them, too: 1_bad.png beside 1.png. Sizes and the
# negatives of films end so as well.
_BESIDE_PLAIN = {word for word, side in _WEAK.items() if side == "rejected"} - {"l", "neg", "negative", "negatives"}
_FILLERS = {
    "image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos", "sample", "samples",
    "set", "data", "dataset", "folder", "output", "outputs", "dpo",
}  # fmt: skip
# Two folders of pictures by the same names that are to be compared, without a word on which is preferred.
_UNJUDGED = (("a", "b"), ("left", "right"), ("first", "second"))
_UNJUDGED_FOLDERS = (*_UNJUDGED, ("one", "two"), ("1", "2"), ("0", "1"))

_MASK = re.compile(r"(?<![^\W\d_])(?:masks?|masklabels?|condlabels?|mattes?|segmentations?|segmaps?)(?![^\W\d_])", re.I)
_CONDITION = re.compile(
    r"(?<![^\W\d_])(?:conditioning|conditions?|control(?:net|s)?|depth|canny|hed|lineart|scribble|softedge|openpose)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
_ALWAYS_MASK = re.compile(r"(?:mask|cond)label$", re.I)  # OneTrainer's
_REGULARISATION = re.compile(
    r"(?<![^\W\d_])regulari[sz](?:ation|er)s?(?![^\W\d_])"
    r"|^(?:\d+_)?regs?(?![^\W\d_])|(?<![^\W\d_])regs?$"
    r"|^class[-_ ]?(?:images?|imgs?|data|dataset|dir|pictures|photos)$"
    r"|^prior(?:[-_ ]?(?:preservation|images|data))?$",
    re.IGNORECASE,
)
_APART = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[\s_.\-()\[\]]+")
_NUMBER_BEFORE = re.compile(r"^\d{1,4}_")


_REPEATED = re.compile(r"^(?P<count>\d{1,4})_(?=.*[^\W\d_])(?P<prompt>.+)$")


@dataclass(frozen=True)
class Repeated:
    """``10_zibu creature``, as kohya's trainers read it: how often a picture counts, and its prompt."""

    count: int
    prompt: str


def repeated(path: str) -> Repeated | None:
    found = _REPEATED.match(path.rpartition("/")[0].rpartition("/")[2])
    return Repeated(int(found["count"]), found["prompt"].replace("_", " ").strip()) if found is not None else None


@dataclass(frozen=True)
class Mark:
    """A side that a name says; ``rest`` is the name without it, and ``certain`` that it needs no opposite.
    ``beside_plain``: the image that is called ``rest`` is an opposite, too."""

    side: Side
    rest: str
    certain: bool
    beside_plain: bool = False


def joined(name: str) -> str:
    """Equal for names that differ in case and in the signs between their words alone."""
    return _SEPARATORS.sub("_", _APART.sub("_", name)).strip("_").casefold()


def stem(path: str) -> str:
    """The path without its suffix."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def folder_mark(name: str) -> Mark | None:
    strong = _strong(name)
    if strong is not None:
        side, rest = strong
        left = "_".join(word for word in _words(_NUMBER_BEFORE.sub("", rest)) if word not in _FILLERS)
        alone = side == "rejected" or not left or left.isdigit()
        return Mark(side, left, certain=alone and _certain(name))
    words = [word for word in _words(_NUMBER_BEFORE.sub("", name)) if word not in _FILLERS]
    word = words[0] if len(words) == 1 else ""
    found = _WEAK.get(word) or _TOGETHER.get(word)
    return Mark(found, "", word in _CERTAIN) if found is not None else None


def file_mark(name: str) -> Mark | None:
    """Of a file's name without its suffix."""
    strong = _strong(name)
    if strong is not None:
        return Mark(strong[0], joined(strong[1]), certain=strong[0] == "rejected" and _certain(name))
    for words in (_words(name), re.findall(r"\d+|[^\W\d_]+", joined(name))):  # fox_w, 1w
        for at in (-1, 0):
            if len(words) > 1 and words[at] in _WEAK:
                word = words.pop(at)
                return Mark(_WEAK[word], "_".join(words), False, at == -1 and word in _BESIDE_PLAIN)
    return None


def _certain(name: str) -> bool:
    """Whether the side needs no opposite: "unselected" says it alone, "selected" does not."""
    apart = _APART.sub("_", name)
    return not all(_ALONE_NO_SIDE.fullmatch(found[0]) for found in _SIDE.finditer(apart))


def _strong(name: str) -> tuple[Side, str] | None:
    """The one side that is named, and the name without it; a name with both ("chosen_vs_rejected") says neither."""
    apart = _APART.sub("_", name)
    sides = {found.lastgroup for found in _SIDE.finditer(apart)}
    if len(sides) != 1:
        return None
    return "chosen" if sides == {"chosen"} else "rejected", _SIDE.sub("", apart)


def _words(name: str) -> list[str]:
    return [word for word in joined(name).split("_") if word]


def without_side(name: str, side: Side) -> str:
    """A file's name without the word for the side that its folder has named already."""
    found = _strong(name)
    return joined(found[1]) if found is not None and found[0] == side else joined(name)


def split_of(path: str) -> Split | None:
    """What the innermost folder that is named as a split says; a folder called "test" holds pairs out."""
    folders = path.split("/")[:-1]
    return next((SPLITS[name] for folder in reversed(folders) if (name := folder.casefold()) in SPLITS), None)


def called_side(path: str) -> Side | None:
    """The one side that the path's words name for certain; None if they name none or both."""
    sides = {strong[0] for part in stem(path).split("/") if (strong := _strong(part)) is not None}
    return sides.pop() if len(sides) == 1 else None


def not_chosen(path: str, rejected: Collection[str], aside: Mapping[str, LeftOut]) -> str | None:
    """What the path calls an image that nobody can have chosen: rejected, a mask, or a regularisation image.
    ``rejected`` and ``aside`` are those that the names of all images call so together."""
    parts = stem(path).split("/")
    if path in rejected or any((strong := _strong(part)) is not None and strong[0] == "rejected" for part in parts):
        return "rejected"
    if aside.get(path) == "regularisation":
        return "a regularisation image"
    return "a mask" if path in aside or _ALWAYS_MASK.search(parts[-1]) else None


def unjudged(names: Collection[str], *, folders: bool) -> tuple[str, str] | None:
    """Two of the names that are sides of a comparison without a preference; files are numbered for other reasons."""
    by_word = {joined(name): name for name in names}
    for first, second in _UNJUDGED_FOLDERS if folders else _UNJUDGED:
        for pattern in ("{}", "image_{}", "images_{}", "img_{}", "model_{}", "side_{}"):
            both = pattern.format(first), pattern.format(second)
            if all(name in by_word for name in both):
                return by_word[both[0]], by_word[both[1]]
    return None


def set_aside(paths: Collection[str]) -> dict[str, LeftOut]:
    """The pictures that trainers do not learn, by the reason: regularisation pictures, masks and conditioning images.

    A mask is one where the picture that it belongs to is there: a carnival's masks are pictures like others.
    """
    instances = any(_words(folder)[:1] == ["instance"] for path in paths for folder in path.split("/")[:-1])
    aside: dict[str, LeftOut] = {path: "regularisation" for path in paths if _is_regularisation(path, instances)}
    others = [path for path in paths if path not in aside]
    in_mask_folder = {path for path in others if any(map(_is_mask_folder, path.split("/")[:-1]))}
    beside: dict[str, set[str]] = defaultdict(set)  # names in each folder
    for path in others:
        folder, _, name = stem(path).rpartition("/")
        beside[folder].add(joined(name))
    names = {joined(stem(path).rpartition("/")[2]) for path in others if path not in in_mask_folder}
    for path in others:
        folder, _, name = stem(path).rpartition("/")
        bases = {joined(base) for pattern in (_MASK, _CONDITION) if (base := pattern.sub("", name)) != name}
        folder_of_masks = path in in_mask_folder and (joined(name) in names or not names.isdisjoint(bases))
        if _ALWAYS_MASK.search(name) or folder_of_masks or not beside[folder].isdisjoint(bases):
            aside[path] = "mask"
    return aside


def _is_mask_folder(name: str) -> bool:
    return any(pattern.search(_APART.sub("_", name)) for pattern in (_MASK, _CONDITION))


def _is_regularisation(path: str, instances: bool) -> bool:
    parts = stem(path).split("/")
    return any(_REGULARISATION.search(part) or (instances and part.casefold() == "class") for part in parts)
