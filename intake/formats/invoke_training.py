"""Invoke's image-pair preferences: ``image_0``, ``image_1``, ``prompt``, ``prefer_0``, ``prefer_1``.

As invoke-training's annotation page writes them (its docs: Image Pair Preference Dataset). Two equal ones are a tie.
"""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.judgement import Fields, Judgement, Layout, Names, compared, row_finding, unlabelled
from intake.values import is_nothing, truth


def translate(number: int, fields: Fields, file: str, names: Names) -> Iterator[Judgement | Finding]:
    given = [fields.get(name) for name in ("prefer_0", "prefer_1")]
    if all(is_nothing(one) for one in given):
        yield unlabelled(file, number)
        return
    first, second = map(truth, given)
    if first is None or second is None:
        yield row_finding(file, number, "prefer_0 and prefer_1 have to be true or false; correct the row")
        return
    preferred = None if first == second else first
    images = fields.get("image_0"), fields.get("image_1")
    columns = names["image_0"], names["image_1"]
    yield compared(file, number, preferred, images, {"prompt": fields.get("prompt")}, names, columns)


INVOKE_TRAINING = Layout(
    "invoke-training",
    frozenset({"prompt", "image_0", "image_1", "prefer_0", "prefer_1"}),
    translate,
    images=frozenset({"image_0", "image_1"}),
)
