"""Pick-a-Pic (arXiv 2305.01569): ``caption``, two JPEGs as bytes, and a label for each; 0.5 and 0.5 is a tie."""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.judgement import Fields, Judgement, Layout, Names, compared, row_finding, unlabelled
from intake.values import is_nothing, number_of, text_of, truth

SURE = 0.5  # labels are the shares of those who preferred an image
_ROUNDED = 2e-3  # what two shares of half precision may miss of 1


def translate(number: int, fields: Fields, file: str, names: Names) -> Iterator[Judgement | Finding]:
    labels = fields.get("label_0"), fields.get("label_1")
    if truth(fields.get("has_label", True)) is False or is_nothing(labels[0]):
        yield unlabelled(file, number)
        return
    first = number_of(labels[0])
    second = None if is_nothing(labels[1]) else number_of(labels[1])
    wrong = first is None or not 0 <= first <= 1 or (second is None and not is_nothing(labels[1]))
    if first is None or wrong or (second is not None and abs(first + second - 1) > _ROUNDED):
        shown = " and ".join(names.get(name, name) for name in ("label_0", "label_1"))
        yield row_finding(file, number, f"{shown} have to be shares that add up to 1; correct the row")
        return
    known = {"prompt": fields.get("caption"), "annotator": text_of(fields.get("user_id")), "split": fields.get("split")}
    columns = {"prompt": names["caption"], "annotator": names.get("user_id", "user_id")}
    preferred = None if abs(first - SURE) < 1e-6 else first > SURE
    images = fields.get("jpg_0"), fields.get("jpg_1")
    yield compared(file, number, preferred, images, known, columns, (names["jpg_0"], names["jpg_1"]))


PICK_A_PIC = Layout(
    "pick-a-pic",
    frozenset({"caption", "jpg_0", "jpg_1", "label_0"}),
    translate,
    more=frozenset({"label_1", "has_label", "user_id", "split"}),
    images=frozenset({"jpg_0", "jpg_1"}),
)
