"""Tables of two images and a preference, under the many names that they go by.

The two images are the columns whose names differ in a word for a side: ``image_0`` and ``image_1``, ``image_a`` and
``image_b``, ``left`` and ``right``. The preference is a number for each side (labels, votes, Rapidata's weighted
results), a list of two numbers, or a column that names a side, a column or a path. HPDv3 (arXiv 2508.03789) lists the
preferred image first. Argilla's exports have a list of responses a row, one of each annotator.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

from intake.findings import Finding, printable
from intake.formats.columns import (
    IMAGE_WORDS,
    PROMPTS,
    Sides,
    by_plain,
    image_pair,
    named,
    optional,
    paired,
    plain,
    words,
)
from intake.formats.judgement import Fields, Judgement, Layout, Names, compared, row_finding, unlabelled
from intake.values import is_nothing, number_of, text_of

SIDES: tuple[Sides, ...] = (("0", "1"), ("1", "2"), ("a", "b"), ("left", "right"), ("first", "second"), ("one", "two"))
_BEYOND = ("2", "3", "4", "c", "d", "third", "three")  # a third image: these tables rank more than two
_FIRST, _SECOND = {"a", "left", "first", "one"}, {"b", "right", "second", "two"}
_TIES = {"tie", "tied", "draw", "equal", "equally", "same", "both", "neither", "no preference"}
# What may stand beside the word for a side.
_AROUND = IMAGE_WORDS | {
    "the", "is", "was", "model", "side", "response", "better", "best", "preferred", "prefer", "chosen", "winner",
    "wins", "win", "won", "much", "slightly", "strongly", "clearly", "significantly", "far", "choice",
}  # fmt: skip
# Of columns that have a number for each side, the words that say it is a preference; the earlier the better.
_SHARES = ("preference", "preferred", "prefer", "votes", "vote", "wins", "label", "labels")
_SHARE_WORDS = {*_SHARES, "image", "img", "weighted", "results", "result", "count", "num", "is", "jpg"}
_LISTS = ("choice_dist", "human_preference", "votes", "labels", "preferences")
_WORDS = (
    "winner", "preferred", "preferred_image", "preference", "human_preference", "pref", "choice", "selected",
    "selection", "best", "better", "best_image", "chosen", "label", "answer", "vote", "judgement", "judgment",
)  # fmt: skip
_HPDV3 = frozenset({"path1", "path2"})
_RESPONSES, _USERS, _STATUS = "responses", "responses_users", "responses_status"

Decided = bool | None
Preferred = Decided | Literal["nothing", "unknown"]  # the first image; None is a tie


def find(columns: Collection[str]) -> Names | None:
    """The columns of a comparison, by what they are for; None if it is none, or one of more than two images."""
    pair, own = image_pair(columns, SIDES), by_plain(columns)
    prompt = named(own, PROMPTS)
    if pair is None or prompt is None or more_than_two(columns) or "rejected" in own:
        return None
    names = {"prompt": prompt, "first": pair[0], "second": pair[1], **optional(own)}
    shares = _share_columns(columns)
    listed, worded = named(own, _LISTS), named(own, _WORDS)
    if shares is not None:
        names |= {"first_share": shares[0], "second_share": shares[1]}
    if listed is not None or worded is not None:
        names["preference"] = listed or worded or ""
    published = own.keys() >= _HPDV3 and own.keys() & {"choice_dist", "confidence", "model1"}
    return names if shares or "preference" in names or published else None


def more_than_two(columns: Collection[str]) -> bool:
    pair = image_pair(columns, SIDES)
    if pair is None:
        return False
    rest = [set(words(name)) for name in columns if name not in pair]
    shared = set(words(pair[0])) & set(words(pair[1]))
    marks = set(_BEYOND) - set(words(pair[1]))
    return any(parts - shared <= marks and parts - shared and shared <= parts for parts in rest)


def _share_columns(columns: Collection[str]) -> Sides | None:
    found = [
        (min(_SHARES.index(word) for word in rest if word in _SHARES), pair)
        for rest, pair in paired(columns, SIDES)
        if set(rest) <= _SHARE_WORDS and set(rest) & set(_SHARES)
    ]
    return min(found)[1] if found else None


def translate(number: int, fields: Fields, file: str, names: Names) -> Iterator[Judgement | Finding]:
    preferred = _by_shares(fields) if "first_share" in names else "nothing"
    if preferred == "nothing" and "preference" in names:
        preferred = which(fields.get("preference"), names, fields)
    if {plain(names["first"]), plain(names["second"])} == _HPDV3:
        if preferred is False:
            reason = "path2 has more votes than path1, which is the preferred image; correct the row"
            yield row_finding(file, number, reason)
            return
        preferred = True if preferred == "nothing" else preferred
    yield judged(number, fields, file, names, preferred)


def judged(
    number: int, fields: Fields, file: str, names: Names, preferred: Preferred, annotator: str | None = None
) -> Judgement | Finding:
    """Of the row's two images the preferred one, or why that is open."""
    if preferred == "nothing":
        return unlabelled(file, number)
    if preferred == "unknown":
        judged = ("first_share", "second_share") if "first_share" in names else ("preference",)
        value = ", ".join(f"{names[one]} = {printable(str(fields.get(one)))}" for one in judged)
        if _counted_otherwise(fields.get("preference"), names):
            reason = (
                f"{value}, so that the numbers do not count {names['first']} and {names['second']}; "
                f"write the names of the columns in {names['preference']}"
            )
            return row_finding(file, number, reason, "metadata_columns")
        reason = (
            f"{value} names neither {names['first']} nor {names['second']} for certain; write the name of the column"
        )
        return row_finding(file, number, reason)
    known: dict[str, object] = {"annotator": annotator or text_of(fields.get("annotator"))}
    known |= {column: fields.get(column) for column in ("prompt", "split", "weight", "seed") if column in names}
    images = fields.get("first"), fields.get("second")
    by_name = {plain(names["first"]), plain(names["second"])} == _HPDV3
    return compared(
        file, number, preferred, images, known, names, (names["first"], names["second"]),
        search="name" if by_name else "path",
    )  # fmt: skip


def _by_shares(fields: Fields) -> Preferred:
    given = [fields.get("first_share"), fields.get("second_share")]
    if all(is_nothing(one) for one in given):
        return "nothing"
    return more(given)


def more(given: Sequence[object]) -> Preferred:
    """Which of two numbers is larger."""
    first, second = map(number_of, given)
    if first is None or second is None or first < 0 or second < 0:
        return "unknown"
    if first == second == 0:
        return "nothing"
    return None if first == second else first > second


def which(value: object, names: Names, fields: Fields) -> Preferred:
    """What ``value`` says of the two images: a tie, a side, a column's name or a path; numbers for both, or both in
    order of preference."""
    if is_nothing(value):
        return "nothing"
    if isinstance(value, list | tuple) and len(value) == 2:
        best = which(value[0], names, fields) if all(isinstance(one, str) for one in value) else None
        # A ranking, the better one first; otherwise a number for each.
        return best if isinstance(best, bool) and which(value[1], names, fields) is (not best) else more(value)
    if isinstance(value, list | tuple):
        return "unknown"
    if isinstance(value, bool):
        return "unknown"
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    for preferred, column in ((True, "first"), (False, "second")):
        if text in (fields.get(column), names[column]):
            return preferred
    found = {_by_path(text, fields), _by_side(text, names)} - {"unknown"}
    return found.pop() if len(found) == 1 else "unknown"


def _by_path(text: str, fields: Fields) -> Preferred:
    """Of a path the image that it is: in full, by its end, or without its suffix. A bare number counts the images."""
    said = _parts(text)
    for form in (_parts,) if text.isdecimal() else (_parts, lambda path: _parts(path.rpartition(".")[0])):
        ends = [form(path) if isinstance(path := fields.get(one), str) else [] for one in ("first", "second")]
        same = [bool(path) and (path[-len(said) :] == said or said[-len(path) :] == path) for path in ends]
        if said and same[0] != same[1]:
            return same[0]
    return "unknown"


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").casefold().split("/") if part not in ("", ".")]


def _by_side(text: str, names: Names) -> Preferred:
    """Of "left", "image B" or "a is much better" the side; "sdxl-2" and "not a" say more than a side, or another."""
    said = words(text.removesuffix(".0"))
    if set(said) & _TIES or " ".join(said) in _TIES:
        return None
    if text.startswith("-") or re.search(r"\.[^\W\d]|[/\\]", text):  # a number below 0, or a path
        return "unknown"
    first, second = words(names["first"]), words(names["second"])
    ours = (
        {word for word in first if word not in second} | _FIRST,
        {word for word in second if word not in first} | _SECOND,
    )
    if set(said) - ours[0] - ours[1] - {*first, *second} - _AROUND:
        return "unknown"
    found = [bool(set(said) & side) for side in ours]
    return found[0] if found[0] != found[1] else "unknown"


def _counted_otherwise(value: object, names: Names) -> bool:
    """Whether a number that is no column's says what the others mean, too: 0 and 1 of columns 1 and 2, or a scale of
    1 to 5, where a 2 is not the second image."""
    numbered = all(any(word.isdecimal() for word in words(names[one])) for one in ("first", "second"))
    return numbered and "preference" in names and number_of(value) is not None and not isinstance(value, bool)


COMPARISON = Layout(
    "comparison",
    frozenset({"prompt", "image_a", "image_b", "winner"}),
    translate,
    more=frozenset({"annotator", "split", "weight", "seed"}),
    images=frozenset({"first", "second"}),
    finder=find,
)


def find_argilla(columns: Collection[str]) -> Names | None:
    """``<question>.responses`` beside two images; of several questions the one that is called a preference."""
    own = by_plain(columns)
    questions = [name.removesuffix(f"_{_RESPONSES}") for name in own if name.endswith(f"_{_RESPONSES}")]
    questions.sort(key=lambda question: (not set(words(question)) & {*_SHARES, *_WORDS}, question))
    pair, prompt = image_pair(columns, SIDES), named(own, PROMPTS)
    if not questions or pair is None or prompt is None:
        return None
    names = {"prompt": prompt, "first": pair[0], "second": pair[1], "preference": own[f"{questions[0]}_{_RESPONSES}"]}
    more = {"users": f"{questions[0]}_{_USERS}", "status": f"{questions[0]}_{_STATUS}"}
    return names | {column: own[name] for column, name in more.items() if name in own}


def translate_argilla(number: int, fields: Fields, file: str, names: Names) -> Iterator[Judgement | Finding]:
    """A judgement of each response that was submitted."""
    values = _listed(fields.get("preference"))
    users, statuses = _listed(fields.get("users")), _listed(fields.get("status"))
    found = False
    for at, value in enumerate(values):
        status = statuses[at] if at < len(statuses) else "submitted"
        if is_nothing(value) or status in ("draft", "discarded", "pending"):
            continue
        found = True
        annotator = text_of(users[at]) if at < len(users) else None
        row = {**fields, "preference": value}
        yield judged(number, row, file, names, which(value, names, fields), annotator)
    if not found:
        yield unlabelled(file, number)


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [] if is_nothing(value) else [value]


ARGILLA = Layout(
    "argilla",
    frozenset({"prompt", "image_1", "image_2", "preference.responses"}),
    translate_argilla,
    one_a_row=False,
    images=frozenset({"first", "second"}),
    finder=find_argilla,
)


def argilla_record(fields: Fields) -> Fields:
    """A record as Argilla's ``to_json`` nests it, in the columns of its ``to_datasets``; other rows as they are."""
    inner, responses = fields.get("fields"), fields.get("responses")
    if not isinstance(inner, Mapping) or not isinstance(responses, Mapping):
        return fields
    flat: dict[str, object] = {str(name): value for name, value in inner.items()}
    for question, given in responses.items():
        answers = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
        flat[f"{question}.{_RESPONSES}"] = [one.get("value") for one in answers]
        flat[f"{question}.{_RESPONSES}.users"] = [one.get("user_id") for one in answers]
        flat[f"{question}.{_RESPONSES}.status"] = [one.get("status") or "submitted" for one in answers]
    return flat
