"""Tables of two images and a preference under many names; the right image is preferred, or nothing is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intake import Policy, PreparedUpload
from tests.intake.build import codes, jsonl, only, prepare, zip_of
from tests.intake.colours import IMAGES, numbered, pairs

pytestmark = pytest.mark.unit
TWO = {"prompt": "p", "image_a": "0.png", "image_b": "1.png"}


def table(*rows: dict[str, Any], tmp_path: Path, name: str = "metadata.jsonl") -> PreparedUpload:
    return prepare(zip_of((IMAGES | {name: jsonl(*rows)}).items()), tmp_path)


def parquet(*rows: dict[str, Any], tmp_path: Path) -> PreparedUpload:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return prepare(file.getvalue(), tmp_path)


def held(number: int) -> dict[str, Any]:
    """As ``datasets`` stores an image."""
    return {"bytes": numbered(number), "path": None}


@pytest.mark.parametrize(
    ("columns", "first", "second"),
    [
        (("image_a", "image_b"), "a", "b"),
        (("image_a", "image_b"), "image_a", "image_b"),
        (("image_a", "image_b"), "A", "B"),
        (("image_a", "image_b"), "0.png", "1.png"),
        (("image_0", "image_1"), 0, 1),
        (("image_0", "image_1"), "0", "1.0"),
        (("image_1", "image_2"), 1, 2),
        (("image1", "image2"), "image1", "image2"),
        (("image1", "image2"), 1.0, 2.0),
        (("left_image", "right_image"), "left", "right"),
        (("Image Left", "Image Right"), "Left", "Right"),
        (("left", "right"), "left image", "right image"),
        (("img_path_0", "img_path_1"), "img_path_0", "img_path_1"),
        (("candidate_a", "candidate_b"), ["candidate_a", "candidate_b"], ["candidate_b", "candidate_a"]),
        (("output_one", "output_two"), "one", "two"),
    ],
)
@pytest.mark.parametrize("column", ["winner", "Preferred", "preference", "choice", "label", "best_image"])
def test_a_column_that_names_the_preferred_image(
    columns: tuple[str, str], first: object, second: object, column: str, tmp_path: Path
) -> None:
    images = {columns[0]: "0.png", columns[1]: "1.png"}
    rows = [{"prompt": "one", **images, column: first}, {"prompt": "two", **images, column: second}]
    assert pairs(table(*rows, tmp_path=tmp_path)) == [("one", 0, 1), ("two", 1, 0)]


@pytest.mark.parametrize("value", ["b.png", "./images/b.png", "images\\b.png", "/data/images/b.png", "B.PNG"])
def test_a_path_is_the_image_that_it_names_and_not_a_side(value: str, tmp_path: Path) -> None:
    swapped = {"prompt": "p", "image_a": "images/b.png", "image_b": "images/a.png", "winner": value}
    files = {"images/a.png": numbered(0), "images/b.png": numbered(1), "metadata.jsonl": jsonl(swapped)}
    assert pairs(prepare(zip_of(files.items()), tmp_path)) == [("p", 1, 0)]


def test_a_name_that_is_a_side_and_another_image_names_neither(tmp_path: Path) -> None:
    swapped = {"prompt": "p", "image_a": "images/b.png", "image_b": "images/a.png", "winner": "b"}
    files = {"images/a.png": numbered(0), "images/b.png": numbered(1), "metadata.jsonl": jsonl(swapped)}
    assert codes(prepare(zip_of(files.items()), tmp_path)) == ["row_invalid"]


@pytest.mark.parametrize("value", ["sd-2", "sd-1.5", "flux 1", "not 1", "1 worse", "c/2.png", "1 > 2"])
def test_a_word_beside_a_side_may_say_another(value: str, tmp_path: Path) -> None:
    row = {"prompt": "p", "image_1": "0.png", "image_2": "1.png", "winner": value}
    prepared = table(row, tmp_path=tmp_path)
    assert (codes(prepared), prepared.count) == (["row_invalid"], 0)


@pytest.mark.parametrize("value", ["image b", "B is better", "Model B", "the second", "b wins", "much better: B"])
def test_words_around_a_side_are_read(value: str, tmp_path: Path) -> None:
    assert pairs(table(TWO | {"winner": value}, tmp_path=tmp_path)) == [("p", 1, 0)]


@pytest.mark.parametrize(
    ("columns", "numbers"),
    [
        (("image_1", "image_2"), (0, 1)), (("image_0", "image_1"), (1, 2)), (("image_1", "image_2"), (2, 5)),
        (("image_1", "image_2"), (1, -1)), (("image_0", "image_1"), (0, 0.5)),
    ],
)  # fmt: skip
def test_numbers_that_count_otherwise_than_the_columns_are_refused_once_whatever_rows_are_dropped(
    columns: tuple[str, str], numbers: tuple[float, float], tmp_path: Path
) -> None:
    images = {columns[0]: "0.png", columns[1]: "1.png"}
    rows = [{"prompt": f"p{at}", **images, "label": number} for at, number in enumerate(numbers * 2)]
    archive = zip_of((IMAGES | {"metadata.jsonl": jsonl(*rows)}).items())
    prepared = prepare(archive, tmp_path, policy=Policy(invalid_rows="drop"))
    assert (codes(prepared), prepared.usable) == (["metadata_columns"], False)
    assert "write the names of the columns in label" in prepared.findings[0].message


@pytest.mark.parametrize("value", ["tie", "both", "Equal", "both_good", "neither"])
def test_a_tie_is_a_tie(value: str, tmp_path: Path) -> None:
    prepared = table(TWO | {"winner": "a"}, TWO | {"winner": value}, tmp_path=tmp_path)
    assert (pairs(prepared), prepared.report.tied) == ([("p", 0, 1)], 1)


@pytest.mark.parametrize("value", ["c", "ab", "a b", 1, 0, True, [1, 2, 3], {"x": 1}, "perhaps"])
def test_a_preference_that_names_neither_image_is_no_preference(value: object, tmp_path: Path) -> None:
    prepared = table(TWO | {"winner": value}, tmp_path=tmp_path)
    assert (codes(prepared), prepared.count) == (["row_invalid"], 0)
    assert "names neither image_a nor image_b" in prepared.findings[0].message


@pytest.mark.parametrize("value", [None, "", "NaN", float("nan"), "None"])
def test_no_preference_is_a_missing_label(value: object, tmp_path: Path) -> None:
    prepared = table(TWO | {"winner": "b"}, TWO | {"winner": value}, tmp_path=tmp_path)
    assert (pairs(prepared), codes(prepared)) == ([("p", 1, 0)], ["label_missing"])


@pytest.mark.parametrize(
    "shares",
    [
        ("votes_image_a", "votes_image_b"), ("label_a", "label_b"), ("votes_a", "votes_b"), ("prefer_a", "prefer_b"),
        ("weighted_results_image_a_preference", "weighted_results_image_b_preference"),
    ],
)  # fmt: skip
def test_a_number_for_each_image(shares: tuple[str, str], tmp_path: Path) -> None:
    two: dict[str, object] = {**TWO}
    rows = [two | {"prompt": prompt, shares[0]: first, shares[1]: second} for prompt, first, second in (
        ("one", 9, 1.5), ("two", "0.25", "0.75"), ("tie", 3, 3), ("nothing", 0, 0), ("yes", True, False),
    )]  # fmt: skip
    prepared = table(*rows, tmp_path=tmp_path)
    assert pairs(prepared) == [("one", 0, 1), ("two", 1, 0), ("yes", 0, 1)]
    assert prepared.report.dropped == {"pair_tied": 1, "label_missing": 1}


def test_rapidatas_results_go_by_preference_not_by_alignment(tmp_path: Path) -> None:
    """As Rapidata/text-2-image-human-preferences has its columns."""
    row = {
        "prompt": "p", "image1": held(0), "image2": held(1), "model1": "a", "model2": "b",
        "weighted_results_image1_preference": 0.2, "weighted_results_image2_preference": 0.8,
        "detailed_results_preference": "[]",
        "weighted_results_image1_coherence": 0.9, "weighted_results_image2_coherence": 0.1,
        "weighted_results_image1_alignment": 0.9, "weighted_results_image2_alignment": 0.1,
    }  # fmt: skip
    prepared = parquet(row, tmp_path=tmp_path)
    assert (prepared.format, pairs(prepared)) == ("parquet/comparison", [("p", 1, 0)])
    votes = {"prompt": "p", "image1": held(0), "image2": held(1), "votes_image1": 9.0, "votes_image2": 1.0}
    assert pairs(parquet(votes, tmp_path=tmp_path)) == [("p", 0, 1)]


def test_open_image_preferences_as_it_is_published(tmp_path: Path) -> None:
    row = {
        "id": "1", "quality_dimension": "q", "prompt": "p", "chosen": held(0), "chosen_model": "dev",
        "rejected": held(1), "rejected_model": "sd", "evolution": "x", "category": "Anime", "sub_category": "",
    }  # fmt: skip
    assert pairs(parquet(row, tmp_path=tmp_path)) == [("p", 0, 1)]


def test_hpdv3_lists_the_preferred_image_first(tmp_path: Path) -> None:
    row = {"prompt": "p", "path1": "images/0.png", "path2": "images/1.png", "model1": "a", "model2": "b"}
    rows = [
        row | {"confidence": 0.9, "choice_dist": [9, 1]},
        row | {"confidence": None, "choice_dist": None, "prompt": "q"},
        row | {"confidence": 0.9, "choice_dist": [1, 9], "prompt": "contradicts itself"},
    ]
    images = {f"images/{name}": data for name, data in IMAGES.items()}
    prepared = prepare(zip_of((images | {"train.json": json.dumps(rows).encode()}).items()), tmp_path)
    assert pairs(prepared) == [("p", 0, 1), ("q", 0, 1)]
    assert "path2 has more votes than path1" in prepared.findings[0].message


ARGILLA = {"id": "r", "status": "completed", "_server_id": "s", "prompt": "p"}


def test_argillas_responses_are_a_judgement_of_each_annotator(tmp_path: Path) -> None:
    """As ``rg.Dataset.records.to_datasets`` writes them to parquet."""
    answers = {
        "preference.responses": ["image_1", "image_2", "image_2", "both"],
        "preference.responses.users": ["u1", "u2", "u3", "u4"],
        "preference.responses.status": ["submitted", "submitted", "discarded", "submitted"],
        "comment.responses": ["fine"],
    }
    row = ARGILLA | answers | {"image_1": held(0), "image_2": held(1)}
    none = row | dict.fromkeys(answers) | {"prompt": "nobody"}
    prepared = parquet(row, none, tmp_path=tmp_path)
    assert prepared.format == "parquet/argilla"
    assert pairs(prepared) == [("p", 0, 1), ("p", 1, 0)]
    assert [pair.annotator for pair in prepared.pairs] == ["u1", "u2"]
    assert prepared.report.dropped == {"pair_tied": 1, "label_missing": 1}


def test_argillas_records_as_json(tmp_path: Path) -> None:
    """As ``rg.Dataset.records.to_json`` nests them."""
    records = [
        {
            "id": "r", "fields": {"prompt": "p", "image_1": "0.png", "image_2": "1.png"}, "metadata": {},
            "suggestions": {}, "vectors": {}, "status": "completed", "_server_id": "s",
            "responses": {"preference": [{"value": "image_2", "user_id": "u1"}]},
        }
    ]  # fmt: skip
    prepared = prepare(zip_of((IMAGES | {"records.json": json.dumps(records).encode()}).items()), tmp_path)
    assert (prepared.format, pairs(prepared)) == ("archive/argilla", [("p", 1, 0)])
    assert [pair.annotator for pair in prepared.pairs] == ["u1"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (TWO, "no column that says which is preferred"),
        (TWO | {"image_c": "2.png", "winner": "c"}, "compares more than two images a row"),
        ({"prompt": "p", "image_0": "0.png", "image_1": "1.png", "image_2": "2.png", "best": 0}, "more than two"),
        ({"prompt": "p", "image": "0.png", "rank": 2}, "says some are worse than others"),
        ({"prompt": "p", "image_path": "0.png", "rank": 1, "overall_rating": 6}, "says some are worse than others"),
        ({"prompt": "p", "image": "0.png", "label": False}, "says some are worse than others"),
        ({"prompt": "p", "image_path": ["0.png", "1.png"], "rank": [1, 2]}, "says some are worse than others"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_say_which_image_is_better_is_refused_once(
    row: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """None of its images may be taken for a chosen one."""
    finding = only(table(row, row, row, tmp_path=tmp_path).findings)
    assert (finding.code, finding.row) == ("metadata_columns", None)
    assert words in finding.message
    assert f"its columns are {', '.join(row)}" in finding.message


def test_a_message_names_the_files_own_columns(tmp_path: Path) -> None:
    row = {"Caption": "", "Left Image": "0.png", "Right Image": "none.png", "winner": "right"}
    prepared = table(row, row | {"Caption": "c"}, row | {"Caption": "c", "Left Image": None}, tmp_path=tmp_path)
    messages = " ".join(one.message for one in prepared.findings)
    assert "column 'Caption' is missing or empty" in messages
    assert "Right Image image none.png is not in the archive" in messages
    assert "one of its two images is missing (column 'Left Image')" in messages


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("image", "rejected_image"), ("chosen", "rejected_image"), ("chosen_image", "rejected"), ("image", "bad_image"),
        ("preferred_image", "rejected_image"), ("image_win", "image_rejected"), ("chosen", "loser"),
        ("file_name", "negative_file_name"),
    ],
)  # fmt: skip
def test_two_columns_that_name_their_sides_otherwise_are_a_pair(chosen: str, rejected: str, tmp_path: Path) -> None:
    prepared = table({"prompt": "p", chosen: "0.png", rejected: "1.png"}, tmp_path=tmp_path)
    assert (pairs(prepared), codes(prepared)) == ([("p", 0, 1)], [])


@pytest.mark.parametrize(
    "column",
    ["accepted", "selected", "is_rejected", "Liked", "thumbs", "is_good", "verdict", "upvotes", "num_votes", "elo",
     "win", "isBest", "feedback", "keep", "is_chosen", "user_preference", "label"],
)  # fmt: skip
def test_one_image_a_row_with_a_judgement_is_no_table_of_chosen_images(column: str, tmp_path: Path) -> None:
    prepared = table({"file_name": "0.png", "text": "p", column: 0}, tmp_path=tmp_path)
    assert codes(prepared) == ["metadata_columns"]
    assert f"a column {column!r} that says some are worse than others" in prepared.findings[0].message


@pytest.mark.parametrize("column", ["best_caption", "win_size", "keep_tokens", "aesthetic_score", "width", "source"])
def test_columns_that_say_something_else_are_left_unread(column: str, tmp_path: Path) -> None:
    prepared = table({"file_name": "0.png", "text": "p", column: 0}, tmp_path=tmp_path)
    assert (pairs(prepared), prepared.usable) == ([("p", 0, None)], True)
