"""What the whole of an upload shows: each finding on the smallest upload that has it."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from intake import PreparedPair, PreparedUpload, Report
from intake.images.image_folder import StoredImage
from intake.review import Review, ReviewedPair
from intake.review.agreement import krippendorff_alpha
from intake.review.tokens import clip_tokens, t5_tokens, truncated_by
from tests.intake.build import jsonl, png, prepare, zip_of

pytestmark = pytest.mark.unit
IMAGES = {"a": png((255, 0, 0)), "b": png((0, 0, 255)), "c": png((0, 255, 0)), "d": png((9, 9, 9))}


def row(chosen: str = "a", rejected: str | None = "b", prompt: str = "a red fox", **more: Any) -> dict[str, Any]:
    names = {"chosen": f"{chosen}.png"} | ({"rejected": f"{rejected}.png"} if rejected else {})
    return {"prompt": prompt} | names | more


def prepared(folder: Path, *rows: dict[str, Any], images: dict[str, bytes] = IMAGES) -> PreparedUpload:
    files = {"metadata.jsonl": jsonl(*rows)} | {f"{name}.png": data for name, data in images.items()}
    return prepare(zip_of(files.items()), folder)


def fields(found: PreparedUpload) -> list[tuple[str, int | None]]:
    return [(finding.code, finding.row) for finding in found.findings]


def test_a_sound_upload_shows_nothing(tmp_path: Path) -> None:
    found = prepared(tmp_path, row(), row("c", "d"), row("a", "b", prompt="another fox"))
    assert fields(found) == []
    figures = found.report.figures
    assert (figures.pairs, figures.prompts, figures.images, dict(figures.sizes)) == (3, 2, 4, {"96x64": 6})
    assert figures.agreement is None


def test_the_same_pair_twice_is_told_with_the_row_it_repeats(tmp_path: Path) -> None:
    found = prepared(tmp_path, row(), row("c", "d"), row(prompt="A  RED fox"))
    assert fields(found) == [("pair_repeated", 3)]
    assert "row 1" in found.findings[0].message
    assert found.usable


@pytest.mark.parametrize("first", [{"annotator": "anna"}, {}])
@pytest.mark.parametrize("second", [{"annotator": "anna"}, {}])
def test_a_row_that_names_nobody_may_repeat_anyones(
    first: dict[str, str], second: dict[str, str], tmp_path: Path
) -> None:
    assert fields(prepared(tmp_path, row(**first), row(**second))) == [("pair_repeated", 2)]
    assert fields(prepared(tmp_path, row("a", "b", **first), row("b", "a", **second))) == [("pair_contradicted", 2)]


def test_the_opposite_preference_is_a_contradiction(tmp_path: Path) -> None:
    found = prepared(tmp_path, row("a", "b"), row("b", "a"))
    assert fields(found) == [("pair_contradicted", 2)]
    assert found.report.figures.contradicted == 1


def test_a_pair_counts_as_a_preference_unless_it_is_said_to_be_tied() -> None:
    one, two = (StoredImage(name * 64, 512, 512, look * 192, False) for name, look in (("a", b"\0"), ("b", b"\xff")))
    review = Review("metadata.jsonl")
    preferred = ReviewedPair(PreparedPair(1, "a fox", one.sha256, two.sha256), one, two)
    opposite = ReviewedPair(PreparedPair(2, "a fox", two.sha256, one.sha256), two, one)
    assert [finding.code for pair in (preferred, opposite) for finding in review.add(pair)] == ["pair_contradicted"]


def test_annotators_who_judge_alike_or_differently_are_neither(tmp_path: Path) -> None:
    found = prepared(
        tmp_path,
        row("a", "b", annotator="kim"),
        row("a", "b", annotator="lee"),
        row("b", "a", annotator="sam"),
        row("c", "d", annotator="kim"),
    )
    assert fields(found) == []
    figures = found.report.figures
    assert (figures.annotators, figures.compared_again) == (3, 1)
    assert figures.agreement == pytest.approx(0.0)


def test_an_annotator_who_judges_again_counts_once_with_the_last_judgement(tmp_path: Path) -> None:
    alone = prepared(tmp_path, row("a", "b", annotator="kim"), row("a", "b", annotator="kim"))
    figures = alone.report.figures
    assert (figures.annotators, figures.compared_again, figures.agreement) == (1, 0, None)
    assert fields(alone) == [("pair_repeated", 2)]
    changed = prepared(
        tmp_path,
        row("a", "b", annotator="kim"),
        row("b", "a", annotator="lee"),
        row("b", "a", annotator="kim"),
        row("c", "d", annotator="kim"),
        row("c", "d", annotator="lee"),
    )
    figures = changed.report.figures
    assert (figures.annotators, figures.compared_again, figures.agreement) == (2, 2, 1.0)
    assert fields(changed) == [("pair_contradicted", 3)]


@pytest.mark.parametrize("named_first", [True, False])
def test_a_judgement_by_nobody_named_may_be_anyones(named_first: bool, tmp_path: Path) -> None:
    by = [{"annotator": "kim"}, {}] if named_first else [{}, {"annotator": "kim"}]
    assert fields(prepared(tmp_path, row("a", "b", **by[0]), row("b", "a", **by[1]))) == [("pair_contradicted", 2)]
    assert fields(prepared(tmp_path, row("a", "b", **by[0]), row("a", "b", **by[1]))) == [("pair_repeated", 2)]


def test_two_rows_of_one_image_without_a_rejected_one_are_the_same_pair(tmp_path: Path) -> None:
    found = prepared(tmp_path, row("a", None), row("a", None), row("b", None), row("a", "b"), row("b", "a"))
    assert [one for one in fields(found) if one[0] != "rejected_missing"] == [
        ("pair_repeated", 2),
        ("pair_contradicted", 5),
    ]
    assert found.report.figures.repeated == 1


def test_images_that_hardly_differ_are_told(tmp_path: Path) -> None:
    images = {"a": png((200, 30, 60)), "b": png((201, 30, 60))}
    assert fields(prepared(tmp_path, row(), images=images)) == [("pair_near_identical", 1)]


def test_images_of_different_shapes_are_told_and_of_different_sizes_not(tmp_path: Path) -> None:
    images = IMAGES | {"b": png((0, 0, 255), (192, 128)), "d": png((9, 9, 9), (96, 96))}
    assert fields(prepared(tmp_path, row(), row("c", "d"), images=images)) == [("image_sizes_differ", 2)]


@pytest.mark.parametrize(
    ("chosen", "rejected", "told_of"),
    [
        ((384, 384), (96, 96), True),
        ((96, 96), (384, 384), True),
        ((192, 192), (96, 96), False),
        ((194, 193), (96, 96), True),
    ],
)
def test_images_of_very_different_size_are_told_whatever_their_shape(
    chosen: tuple[int, int], rejected: tuple[int, int], told_of: bool, tmp_path: Path
) -> None:
    """More than four times the pixels."""
    images = {"a": png((255, 0, 0), chosen), "b": png((0, 0, 255), rejected)}
    found = prepared(tmp_path, row(), images=images)
    assert fields(found) == ([("image_sizes_differ", 1)] if told_of else [])
    if told_of:
        assert (
            f"chosen is {chosen[0]}x{chosen[1]} and rejected {rejected[0]}x{rejected[1]}" in found.findings[0].message
        )


def test_another_shape_and_size_is_one_finding(tmp_path: Path) -> None:
    images = {"a": png((255, 0, 0), (900, 300)), "b": png((0, 0, 255), (96, 64))}
    found = prepared(tmp_path, row(), images=images)
    assert fields(found) == [("image_sizes_differ", 1)]
    assert "one shape" in found.findings[0].message
    assert "sharpness" in found.findings[0].message


def test_small_images_are_told_once(tmp_path: Path) -> None:
    small = {name: png((50 * place, 0, 99), (40, 63)) for place, name in enumerate("abcd")}
    found = prepared(tmp_path, row(), row("c", "d"), images=small)
    assert fields(found) == [("image_small", 1)]
    assert "2 of 2 pairs" in found.findings[0].message


def test_a_prompt_in_training_and_validation_is_told_once(tmp_path: Path) -> None:
    found = prepared(
        tmp_path,
        row(split="train"),
        row("c", "d", split="validation"),
        row("a", "d", split="validation"),
        row("b", "d", prompt="other", split="train"),
    )
    assert fields(found) == [("prompt_leaked", 2), ("image_leaked", 4)]
    assert found.report.figures.leaked_prompts == 1
    assert dict(found.report.figures.splits) == {"train": 2, "validation": 2}


def test_an_image_in_training_and_validation_is_told_once(tmp_path: Path) -> None:
    found = prepared(
        tmp_path,
        row("a", "b", prompt="one", split="train"),
        row("c", "a", prompt="two", split="validation"),
        row("d", "a", prompt="three", split="validation"),
        row("c", "d", prompt="four", split="validation"),
    )
    assert fields(found) == [("image_leaked", 2)]


@pytest.mark.parametrize("first", [{}, {"split": "validation"}], ids=["unmarked first", "validation first"])
def test_rows_without_a_split_are_training_beside_a_validation_row(first: dict[str, str], tmp_path: Path) -> None:
    second = {} if first else {"split": "validation"}
    found = prepared(tmp_path, row(**first), row("c", "d", **second), row("a", "d", **second))
    assert fields(found) == [("prompt_leaked", 2)]
    assert found.report.figures.leaked_prompts == 1


def test_rows_without_a_split_and_none_for_validation_leak_nothing(tmp_path: Path) -> None:
    assert fields(prepared(tmp_path, row(), row("c", "d", split="train"), row("a", "d"))) == []


def test_a_prompt_that_text_encoders_cut_is_told_by_family(tmp_path: Path) -> None:
    found = prepared(tmp_path, row(prompt="fox " * 76), row("c", "d", prompt="fox " * 256))
    assert fields(found) == [("prompt_truncated", 1), ("prompt_truncated", 2)]
    assert "sd1, sd2, sdxl drop" in found.findings[0].message
    assert dict(found.report.figures.truncated_prompts) == {"sd1": 2, "sd2": 2, "sdxl": 2, "sd3": 1}


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("a red fox", 3), ("don't!", 3), ("8k, 4:3", 6), ("狐狸 fox", 2), ("", 0), ("a_b", 3), ("_- a", 2)],
)
def test_tokens_are_counted_from_below(prompt: str, tokens: int) -> None:
    assert clip_tokens(prompt) == tokens


def test_the_bound_is_one_for_the_bundled_tokenizer_too() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained("demo/base/emoji-xl/tokenizer")
    for prompt in ("a red fox in snow", "8k, 4:3 -- don't!", "UPPER lower", "a _-_ b", "fox " * 90):
        assert clip_tokens(prompt) <= len(tokenizer(prompt).input_ids) - 2
    assert truncated_by("fox " * 75) == []


def test_digits_and_marks_that_t5_may_join_cut_no_prompt_of_sd3() -> None:
    assert t5_tokens("12:30, 4:3!") == 2
    assert "sd3" not in truncated_by("1234567890" * 30)


def test_krippendorffs_alpha_of_a_worked_example() -> None:
    """Krippendorff 2011 (Computing Krippendorff's Alpha-Reliability), example C's shape with nominal values, by hand:
    units aa, ab, bb, aaa. Observed disagreement 2 / 1 / 9 of 9 values; expected 2 * 6 * 3 / (9 * 8)."""
    units = [Counter("aa"), Counter("ab"), Counter("bb"), Counter("aaa")]
    assert krippendorff_alpha(units) == pytest.approx(1 - (2 / 9) / (2 * 6 * 3 / 72))
    assert krippendorff_alpha([Counter("a"), Counter("b")]) is None
    assert krippendorff_alpha([*units, Counter("a")]) == krippendorff_alpha(units)
    assert krippendorff_alpha([Counter("aa"), Counter("aa")]) == 1.0


def test_what_was_dropped_is_counted_by_its_first_fault(tmp_path: Path) -> None:
    found = prepared(tmp_path, row(), row("a", "missing"), row("a", "a"), {"prompt": ""})
    report = found.report
    assert (report.rows, report.kept) == (4, 1)
    assert dict(report.dropped) == {"image_missing": 1, "pair_identical": 1, "prompt_empty": 1}


def test_the_report_survives_json_and_is_readable(tmp_path: Path) -> None:
    found = prepared(tmp_path, row(), row(), row("c", None), row("a", "missing"))
    report = Report.from_json(json.loads(json.dumps(found.report.as_json())))
    assert report == found.report
    words = report.in_words()
    assert words.startswith("archive/metadata.jsonl: 4 rows read, 3 pairs kept.\n  1 dropped: image_missing\n")
    assert "1 pair repeating an earlier one." in words
    assert "error: image_missing: " in words


@pytest.mark.slow
def test_fifty_thousand_pairs_are_reviewed_in_little_memory() -> None:
    review = Review("metadata.jsonl")
    images = [StoredImage(f"{number:064x}", 512, 512, bytes([number % 256]) * 192, False) for number in range(1000)]
    tracemalloc.start()
    for number in range(50_000):
        chosen, rejected = images[number % 1000], images[(number * 7 + 13) % 1000]
        pair = PreparedPair(number, f"prompt number {number}", chosen.sha256, rejected.sha256)
        for _ in review.add(ReviewedPair(pair, chosen, rejected)):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert review.figures().pairs == 50_000
    assert peak < 64 * 2**20


def test_the_buckets_that_would_be_formed_are_told_by_family(tmp_path: Path) -> None:
    wide = {"wide-1": png((1, 2, 3), (128, 64)), "wide-2": png((200, 2, 3), (128, 64))}
    square = {"square-1": png((1, 2, 3), (70, 70)), "square-2": png((200, 2, 3), (70, 70))}
    rows = [{"prompt": name, "chosen": f"{name}-1.png", "rejected": f"{name}-2.png"} for name in ("wide", "square")]
    found = prepared(tmp_path, *rows, images=wide | square)
    assert found.report.figures.buckets["sdxl"] == {"1408x736": 1, "1024x1024": 1}
    assert found.report.figures.buckets["sd1"] == {"640x384": 1, "512x512": 1}
    assert "Training on sdxl: 1 pair at 1408x736, 1 pair at 1024x1024." in found.report.in_words()
