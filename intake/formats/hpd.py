"""Human Preference Dataset v2 (arXiv 2306.09341), in both shapes that it is passed on in.

As pairs: ``prompt``, ``image_left``, ``image_right``, ``pref`` (1 for left, -1 for right). As it is published: a list,
``train.json``, of ``prompt``, ``file_path`` (two names of files in ``train/``; ``image_path`` in copies of it),
``human_preference`` (1 for the preferred one, 0 for the other) and ``user_hash``.
"""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.judgement import Fields, Judgement, Layout, compared, number_of, row_finding, truth, unlabelled

PATHS = ("file_path", "image_path")
FOLDER = "train/"  # where the published archive has the images


def translate_pairs(number: int, fields: Fields, file: str) -> Iterator[Judgement | Finding]:
    if fields.get("pref") is None:
        yield unlabelled(file, number)
        return
    preference = number_of(fields["pref"])
    if preference not in (1, 0, -1):
        yield row_finding(file, number, "pref has to be 1 (left), -1 (right) or 0 (tie); correct the row")
        return
    left = None if preference == 0 else preference > 0
    known = {"prompt": fields.get("prompt"), "annotator": _text(fields.get("user_id"))}
    yield compared(file, number, left, (fields.get("image_left"), fields.get("image_right")), known)


def translate_lists(number: int, fields: Fields, file: str) -> Iterator[Judgement | Finding]:
    column = next((name for name in PATHS if name in fields), PATHS[0])
    paths, preferences = fields.get(column), fields.get("human_preference")
    if not isinstance(paths, list) or not isinstance(preferences, list) or not len(paths) == len(preferences) == 2:
        yield row_finding(file, number, f"{column} and human_preference have to be lists of two; correct the row")
        return
    if None in preferences:
        yield unlabelled(file, number)
        return
    first, second = map(truth, preferences)
    if first is None or second is None:
        yield row_finding(file, number, "human_preference has to be of 1 (preferred) and 0; correct the row")
        return
    known = {"prompt": fields.get("prompt"), "annotator": _text(fields.get("user_hash"))}
    preferred = None if first == second else first
    yield compared(file, number, preferred, (paths[0], paths[1]), known, search="name", folder=FOLDER)


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and str(value).strip() else None


HPD_PAIRS = Layout("hpdv2", frozenset({"prompt", "image_left", "image_right", "pref"}), translate_pairs)
HPD_LISTS = Layout("hpdv2", frozenset({"prompt", "human_preference"}), translate_lists)
