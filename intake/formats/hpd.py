"""Human Preference Dataset v2 (arXiv 2306.09341), in both shapes that it is passed on in.

As pairs: ``prompt``, ``image_left``, ``image_right``, ``pref`` (1 for left, -1 for right). As it is published: a list,
``train.json``, of ``prompt``, ``file_path`` (two names of files in ``train/``; ``image_path`` in copies of it),
``human_preference`` (1 for the preferred one, 0 for the other) and ``user_hash``.
"""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.judgement import Fields, Judgement, Layout, Names, compared, row_finding, unlabelled
from intake.values import is_nothing, number_of, text_of, truth

PATHS = ("file_path", "image_path")
FOLDER = "train/"  # where the published archive has the images


def translate_pairs(number: int, fields: Fields, file: str, names: Names) -> Iterator[Judgement | Finding]:
    if is_nothing(fields.get("pref")):
        yield unlabelled(file, number)
        return
    preference = number_of(fields["pref"])
    if preference not in (1, 0, -1):
        yield row_finding(file, number, "pref has to be 1 (left), -1 (right) or 0 (tie); correct the row")
        return
    left = None if preference == 0 else preference > 0
    known = {"prompt": fields.get("prompt"), "annotator": text_of(fields.get("user_id"))}
    images = fields.get("image_left"), fields.get("image_right")
    yield compared(file, number, left, images, known, names, (names["image_left"], names["image_right"]))


def translate_lists(number: int, fields: Fields, file: str, names: Names) -> Iterator[Judgement | Finding]:
    column = next((name for name in PATHS if name in fields), PATHS[0])
    paths, preferences = fields.get(column), fields.get("human_preference")
    if not isinstance(paths, list) or not isinstance(preferences, list) or not len(paths) == len(preferences) == 2:
        yield row_finding(file, number, f"{column} and human_preference have to be lists of two; correct the row")
        return
    if any(is_nothing(one) for one in preferences):
        yield unlabelled(file, number)
        return
    first, second = map(truth, preferences)
    if first is None or second is None:
        yield row_finding(file, number, "human_preference has to be of 1 (preferred) and 0; correct the row")
        return
    known = {"prompt": fields.get("prompt"), "annotator": text_of(fields.get("user_hash"))}
    preferred = None if first == second else first
    columns = names.get(column, column), names.get(column, column)
    images = paths[0], paths[1]
    yield compared(file, number, preferred, images, known, names, columns, search="name", folder=FOLDER)


HPD_PAIRS = Layout(
    "hpdv2",
    frozenset({"prompt", "image_left", "image_right", "pref"}),
    translate_pairs,
    more=frozenset({"user_id"}),
    images=frozenset({"image_left", "image_right"}),
)
HPD_LISTS = Layout(
    "hpdv2", frozenset({"prompt", "human_preference"}), translate_lists, more=frozenset({*PATHS, "user_hash"})
)
