"""Column names as people and tools write them, and which columns of a layout they are.

``Chosen Image``, ``chosen-image`` and ``chosenImage`` are one name. A pair of columns such as ``image_a`` and
``image_b`` is found by the word in which the two names differ.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from intake.findings import printable

PROMPTS = ("prompt", "caption", "text", "original_prompt", "prompt_text", "description")
# Where a table has one image a row: Hugging Face's ImageFolder and its like.
SINGLE_IMAGES = (
    "file_name", "filename", "image", "image_path", "image_file", "image_file_name", "img", "img_path",
    "file", "file_path", "filepath", "path", "jpg", "jpeg", "png", "webp", "picture", "photo",
)  # fmt: skip
# Such a table ranks its images: some of them are worse, and none of those is a chosen image.
_RANKED = frozenset({"label", "raw_annotations"})
_RANKING = frozenset(
    {"rank", "ranks", "ranking", "rating", "ratings", "preference", "preferred", "rejected", "selected", "accepted",
     "approved", "liked", "disliked", "likes", "dislikes", "thumbs", "upvotes", "downvotes", "upvoted", "downvoted",
     "vote", "votes", "verdict", "elo", "win", "wins", "winner", "won", "lose", "loses", "loser", "losses", "lost",
     "best", "worst", "good", "bad", "keep", "feedback", "judgement", "judgment"}
)  # fmt: skip
_AROUND_RANKING = frozenset(
    {"is", "was", "has", "user", "human", "overall", "num", "number", "of", "count", "score", "rate", "up", "down",
     "chosen", "label"}
)  # fmt: skip
OPTIONAL = {
    "split": ("split", "subset", "partition"),
    "weight": ("weight", "weights", "sample_weight"),
    "annotator": ("annotator", "annotator_id", "user_id", "user_hash", "user", "worker_id", "rater", "rater_id"),
    "seed": ("seed",),
}
PREFERENCES = (
    ("chosen", "rejected"), ("preferred", "dispreferred"), ("preferred", "rejected"), ("winner", "loser"),
    ("win", "lose"), ("winning", "losing"), ("good", "bad"), ("better", "worse"), ("positive", "negative"),
    ("w", "l"),
)  # fmt: skip
IMAGE_WORDS = frozenset(
    {"image", "images", "img", "jpg", "jpeg", "png", "webp", "picture", "pic", "photo", "path", "file", "filename",
     "filepath", "name", "candidate", "option", "output", "sample", "generated", "generation"}
)  # fmt: skip
ADDRESS_WORDS = frozenset({"url", "uri", "link"})

Sides = tuple[str, str]


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """One spelling of the many: lower case, words parted by ``_``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().lstrip("\ufeff"))
    return "_".join(re.findall(r"[^\W_]+", parted)).casefold()


def words(name: str) -> list[str]:
    """``image1`` and ``image_1`` have the same."""
    return re.findall(r"[^\W\d_]+|\d+", plain(name))


def exact(columns: Collection[str], required: Collection[str], more: Collection[str]) -> Mapping[str, str] | None:
    """The columns' own names by the names of ``required`` and ``more``, but for case and spaces."""
    own = by_plain(columns)
    if not set(required) <= own.keys():
        return None
    return {name: own[name] for name in (*required, *more) if name in own}


def by_plain(columns: Iterable[str]) -> dict[str, str]:
    """The own names by the plain ones; of two that are the same but for case, the one that is spelt plainly."""
    found: dict[str, str] = {}
    for name in columns:
        if name == plain(name) or plain(name) not in found:
            found[plain(name)] = name
    return found


def named(own: Mapping[str, str], candidates: Sequence[str]) -> str | None:
    """The own name of the first candidate that is there."""
    return next((own[name] for name in candidates if name in own), None)


def optional(own: Mapping[str, str]) -> dict[str, str]:
    found = {column: named(own, candidates) for column, candidates in OPTIONAL.items()}
    return {column: name for column, name in found.items() if name is not None}


def own_columns(columns: Collection[str]) -> Mapping[str, str] | None:
    """The names of our own columns in a table that may call them otherwise.

    One image a row is a chosen one, unless the table ranks its images.
    """
    own = by_plain(columns)
    prompt = named(own, PROMPTS)
    chosen, rejected = image_pair(columns, PREFERENCES) or (own.get("chosen"), own.get("rejected"))
    chosen, rejected = chosen or _of_side(columns, "chosen"), rejected or _of_side(columns, "rejected")
    if chosen is None and (rejected is not None or not ranking(columns)):
        chosen = named(own, SINGLE_IMAGES)
    if prompt is None or chosen is None:
        return None
    found = {"prompt": prompt, "chosen": chosen, **optional(own)}
    return found if rejected is None else found | {"rejected": rejected}


def ranking(columns: Iterable[str]) -> list[str]:
    """The columns that say of one image how it was judged: ``is_preferred``, ``num_votes``."""
    found = []
    for name in columns:
        parts = set(words(name))
        ranks = parts & _RANKING and parts <= _RANKING | _AROUND_RANKING | IMAGE_WORDS
        if ranks or plain(name) in _RANKED or parts == {"is", "chosen"} or parts == {"human", "preference"}:
            found.append(name)
    return found


def _of_side(columns: Iterable[str], side: str) -> str | None:
    """The column of one side alone: ``rejected_image`` beside ``image``. A word such as "negative" has to be said of
    an image; a loser is one."""
    sides = {pair[side == "rejected"] for pair in PREFERENCES}
    for name in columns:
        said = set(words(name)) & sides
        rest = set(words(name)) - said
        if len(said) == 1 and (rest or said <= {"loser", "dispreferred"}) and rest <= IMAGE_WORDS:
            return name
    return None


def image_pair(columns: Iterable[str], sides: Iterable[Sides]) -> Sides | None:
    """The two columns of images whose names differ in the two words of one of ``sides``: paths before addresses, the
    shorter name before the longer."""
    found = [
        (bool(ADDRESS_WORDS & set(rest)), len(rest), pair)
        for rest, pair in paired(columns, sides)
        if set(rest) <= IMAGE_WORDS | ADDRESS_WORDS
    ]
    return min(found)[2] if found else None


def paired(columns: Iterable[str], sides: Iterable[Sides]) -> list[tuple[tuple[str, ...], Sides]]:
    """Every two columns that differ in the words of one of ``sides``, with the words that they share."""
    parts = {name: words(name) for name in columns if not re.search(r"[./\\]", name)}  # those are names of files
    found: list[tuple[tuple[str, ...], Sides]] = []
    for first, second in sides:
        left, right = (
            {_without(parts[name], side): name for name in parts if side in parts[name]} for side in (first, second)
        )
        found += [(rest, (left[rest], right[rest])) for rest in left if rest in right]
    return found


def _without(parts: list[str], side: str) -> tuple[str, ...]:
    at = parts.index(side)
    return (*parts[:at], *parts[at + 1 :])


def nearest(name: str, candidates: Collection[str]) -> str | None:
    """The candidate that may be meant by a misspelt name."""
    own = by_plain(candidates)
    found = difflib.get_close_matches(plain(name), own, n=1, cutoff=0.7)
    return own[found[0]] if found else None


def shown(columns: Collection[str]) -> str:
    """The columns of a table for a message: at most twenty, printable."""
    listed = [printable(str(name)) for name in columns]
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
