"""Pick-a-Pic (arXiv 2305.01569): ``caption``, two JPEGs as bytes, and a label for each; 0.5 and 0.5 is a tie."""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.judgement import Fields, Judgement, Layout, compared, number_of, row_finding, truth, unlabelled

SURE = 0.5  # labels are the shares of those who preferred an image


def translate(number: int, fields: Fields, file: str) -> Iterator[Judgement | Finding]:
    if truth(fields.get("has_label", True)) is False or fields.get("label_0") is None:
        yield unlabelled(file, number)
        return
    first = number_of(fields["label_0"])
    second = number_of(fields["label_1"]) if fields.get("label_1") is not None else None
    if first is None or not 0 <= first <= 1 or (second is not None and abs(first + second - 1) > 1e-6):
        yield row_finding(file, number, "label_0 and label_1 have to be shares that add up to 1; correct the row")
        return
    annotator = fields.get("user_id")
    known = {"prompt": fields.get("caption"), "annotator": None if annotator is None else str(annotator)}
    preferred = None if first == SURE else first > SURE
    yield compared(file, number, preferred, (fields.get("jpg_0"), fields.get("jpg_1")), known)


PICK_A_PIC = Layout("pick-a-pic", frozenset({"caption", "jpg_0", "jpg_1", "label_0"}), translate)
