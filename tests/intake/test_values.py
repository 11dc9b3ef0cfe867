"""Values as people and programs write them, through the table to the pair."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from intake.limits import Limits
from intake.rows import Row, parse_row
from intake.values import is_nothing, number_of, split_of, truth
from tests.intake.build import jsonl, prepare, zip_of
from tests.intake.colours import IMAGES, pairs

pytestmark = pytest.mark.unit
NAN = float("nan")
GIVEN = {"prompt": "p", "chosen": "0.png", "rejected": "1.png"}


def parsed(**fields: Any) -> Row:
    [row] = parse_row(GIVEN | fields, "t", 1, Limits())
    assert isinstance(row, tuple)
    return row[1]


@pytest.mark.parametrize(
    ("column", "given", "read"),
    [
        ("annotator", 17, "17"), ("annotator", 17.0, "17"), ("annotator", "17", "17"),
        ("annotator", 1.5, "1.5"), ("annotator", "17.0", "17"), ("annotator", "v1.0", "v1.0"),
        ("annotator", "nan", None), ("annotator", NAN, None), ("annotator", " kim ", "kim"),
        ("seed", -1, None), ("seed", "-1", None), ("seed", -1.0, None), ("seed", 1234.0, 1234),
        ("seed", "1234.0", 1234),
        ("seed", "77", 77), ("seed", 0, 0), ("seed", NAN, None), ("seed", "", None), ("seed", "None", None),
        ("weight", "1,5", 1.5), ("weight", "2.5", 2.5), ("weight", NAN, None), ("weight", Decimal("0.5"), 0.5),
        ("weight", "NaN", None), ("weight", True, 1.0),
        ("split", "val", "validation"), ("split", "valid", "validation"), ("split", "dev", "validation"),
        ("split", "VALIDATION", "validation"), ("split", "test", "validation"), ("split", "eval", "validation"),
        ("split", "Train", "train"), ("split", " training ", "train"), ("split", "held-out", "validation"),
        ("split", "null", None), ("split", "", None),
        ("rejected", NAN, None), ("rejected", "NaN", None), ("rejected", "None", None), ("rejected", "null", None),
        ("rejected", "", None), ("rejected", "  ", None), ("rejected", [], None), ("rejected", None, None),
        ("rejected", "N/A", None), ("rejected", "<NA>", None),
    ],
)  # fmt: skip
def test_a_value_is_read_as_it_is_meant(column: str, given: object, read: object) -> None:
    assert getattr(parsed(**{column: given}), column) == read


@pytest.mark.parametrize("prompt", ["None", "null", "nan", "N/A"])
def test_a_prompt_may_be_any_words(prompt: str) -> None:
    assert parsed(prompt=prompt).prompt == prompt


@pytest.mark.parametrize(
    ("value", "truly"),
    [(True, True), ("True", True), ("yes", True), (1, True), (1.0, True), ("1.0", True), ("no", False), (False, False),
     (0, False), ("N", False), ("2", None), (None, None), ("", None), (NAN, None)],
)  # fmt: skip
def test_yes_and_no(value: object, truly: bool | None) -> None:
    assert truth(value) is truly


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), ("false", 0.0), ("0,5", 0.5), (Decimal("1.0"), 1.0), ("1e-1", 0.1), ("x", None), (NAN, None),
     ("", None),
     ("1,000,000", None), ([], None)],
)  # fmt: skip
def test_numbers(value: object, number: float | None) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize("value", [None, NAN, Decimal("NaN"), "", " ", "NaN", "None", "NULL", "n/a", "<NA>", [], {}])
def test_nothing(value: object) -> None:
    assert is_nothing(value)


@pytest.mark.parametrize("value", [0, False, "0", "no", [0], "a"])
def test_something(value: object) -> None:
    assert not is_nothing(value)


def test_other_words_are_no_split() -> None:
    assert (split_of("third"), split_of(""), split_of("trained")) == (None, None, None)


def test_a_wrong_value_is_shown_with_the_files_own_column() -> None:
    [finding] = parse_row(GIVEN | {"weight": "heavy"}, "t", 4, Limits(), {"weight": "Sample Weight"})
    assert not isinstance(finding, tuple)
    assert finding.message.startswith("t row 4: column 'Sample Weight' is wrong")
    assert finding.message.endswith("heavy); correct the row.")


@pytest.mark.parametrize(("column", "value"), [("Subset", "anime"), ("partition", 3), ("Split", "third")])
def test_a_subset_may_be_no_split(column: str, value: object) -> None:
    [found] = parse_row(GIVEN | {"split": value}, "t", 4, Limits(), {"split": column})
    assert isinstance(found, tuple) == (column != "Split")
    assert not isinstance(found, tuple) or found[1].split is None


def test_a_subset_that_is_a_split_is_one() -> None:
    [found] = parse_row(GIVEN | {"split": "Test"}, "t", 4, Limits(), {"split": "Subset"})
    assert isinstance(found, tuple)
    assert found[1].split == "validation"


def test_values_of_pandas_in_csv(tmp_path: Path) -> None:
    table = (
        "prompt,chosen,rejected,annotator,seed,weight,split\n"
        'a fox,0.png,NaN,3.0,1234.0,"0,5",Train\na hen,2.png,3.png,nan,-1,nan,val\n'
    )
    prepared = prepare(zip_of((IMAGES | {"metadata.csv": table.encode()}).items()), tmp_path)
    assert pairs(prepared) == [("a fox", 0, None), ("a hen", 2, 3)]
    assert [(pair.split, pair.weight, pair.annotator, pair.seed) for pair in prepared.pairs] == [
        ("train", 0.5, "3", 1234),
        ("validation", None, None, None),
    ]


def test_values_of_pandas_in_json(tmp_path: Path) -> None:
    given: dict[str, object] = {**GIVEN}
    rows = [given | {"rejected": NAN, "annotator": 3, "seed": -1, "split": "dev"}, given | {"split": None}]
    prepared = prepare(zip_of((IMAGES | {"metadata.jsonl": jsonl(*rows)}).items()), tmp_path)
    assert pairs(prepared) == [("p", 0, None), ("p", 0, 1)]
    assert [(pair.annotator, pair.seed, pair.split) for pair in prepared.pairs] == [
        ("3", None, "validation"),
        (None, None, None),
    ]


@pytest.mark.parametrize("weight", [1e300, 2e6, 0, -1, float("inf"), "2x"])
def test_a_weight_that_cannot_be_summed_is_wrong(weight: object) -> None:
    [found] = parse_row(GIVEN | {"weight": weight}, "t", 4, Limits())
    assert not isinstance(found, tuple)
