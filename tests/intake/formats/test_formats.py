"""Each format on a file as its own tool writes it: recognised, named, and the right image preferred."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from intake import Policy, PreparedUpload
from intake.formats.label_studio import path_of
from intake.formats.tables.parquet import read_parquet
from intake.limits import Limits
from tests.intake.build import codes, encoded, only, pixel, png, prepare, tar_of, zip_of

pytestmark = pytest.mark.unit

RED, BLUE, GREEN = png((255, 0, 0)), png((0, 0, 255)), png((0, 200, 0))


def preferred(prepared: PreparedUpload) -> list[tuple[str, str, str | None]]:
    """Prompt, and the colours of both images, of every pair."""
    names: dict[tuple[int, ...], str] = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 200, 0): "green"}

    def colour(sha256: str | None) -> str | None:
        return None if sha256 is None else names[pixel(prepared.images[sha256])[:3]]

    return [(pair.prompt, str(colour(pair.chosen)), colour(pair.rejected)) for pair in prepared.pairs]


def pick_a_pic(*rows: dict[str, Any], group: int = 2) -> bytes:
    """As the hub's dataset viewer and ``datasets`` write the table: these columns of it are those that matter."""
    usual = {
        "are_different": True, "best_image_uid": "7f", "created_at": "2023-01-01", "has_label": True, "user_id": 4,
        "image_0_uid": "7f", "image_1_uid": "8a", "jpg_0": RED, "jpg_1": BLUE, "label_0": 1.0, "label_1": 0.0,
        "model_0": "a", "model_1": "b", "ranking_id": 1, "num_example_per_prompt": 1, "caption": "a fox",
    }  # fmt: skip
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([usual | row for row in rows]), file, row_group_size=group)
    return file.getvalue()


def test_pick_a_pic_parquet(tmp_path: Path) -> None:
    data = pick_a_pic(
        {}, {"label_0": 0.0, "label_1": 1.0, "caption": "a hen"}, {"label_0": 0.5, "label_1": 0.5}, {"has_label": False}
    )
    prepared = prepare(data, tmp_path)
    assert prepared.format == "parquet/pick-a-pic"
    assert preferred(prepared) == [("a fox", "red", "blue"), ("a hen", "blue", "red")]
    assert (prepared.report.rows, prepared.report.tied) == (4, 1)
    assert prepared.report.dropped == {"pair_tied": 1, "label_missing": 1}
    assert [pair.annotator for pair in prepared.pairs] == ["4", "4"]
    assert prepared.usable


def test_pick_a_pic_with_every_column_it_is_published_with(tmp_path: Path) -> None:
    """Photographs as JPEG, several row groups, timestamps, and the index that pandas left."""
    red, blue = (encoded(Image.new("RGB", (64, 64), colour), "JPEG") for colour in ((255, 0, 0), (0, 0, 255)))
    count = 25
    columns = {
        "are_different": [True] * count, "best_image_uid": ["7f"] * count, "caption": [f"{n}" for n in range(count)],
        "created_at": [datetime(2023, 1, 1, tzinfo=UTC)] * count, "has_label": [True] * count,
        "image_0_uid": ["7f"] * count, "image_0_url": ["https://example.org/7f.png"] * count,
        "image_1_uid": ["8a"] * count, "image_1_url": ["https://example.org/8a.png"] * count,
        "jpg_0": [red] * count, "jpg_1": [blue] * count,
        "label_0": [float(n % 2) for n in range(count)], "label_1": [float(1 - n % 2) for n in range(count)],
        "model_0": ["a"] * count, "model_1": ["b"] * count, "ranking_id": list(range(count)),
        "user_id": [n % 3 for n in range(count)], "num_example_per_prompt": [1] * count,
        "__index_level_0__": list(range(count)),
    }  # fmt: skip
    assert len(columns) == 19
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=7, compression="snappy")
    prepared = prepare(file.getvalue(), tmp_path)
    assert (prepared.format, prepared.report.rows, prepared.count) == ("parquet/pick-a-pic", count, count)
    assert [pair.prompt for pair in prepared.pairs] == columns["caption"]
    assert [pixel(prepared.images[pair.chosen])[0] > 200 for pair in prepared.pairs] == [
        n % 2 == 1 for n in range(count)
    ]
    assert len(prepared.images) == 2


def test_parquet_with_our_columns_and_hugging_faces_images(tmp_path: Path) -> None:
    file = io.BytesIO()
    rows = [{"prompt": "a fox", "chosen": {"bytes": RED, "path": "x.png"}, "rejected": {"bytes": BLUE, "path": None}}]
    pq.write_table(pa.Table.from_pylist(rows), file)
    prepared = prepare(file.getvalue(), tmp_path)
    assert (prepared.format, preferred(prepared)) == ("parquet/pairtune", [("a fox", "red", "blue")])


def test_a_row_without_a_label_is_named_with_its_table_and_row(tmp_path: Path) -> None:
    prepared = prepare(pick_a_pic({}, {"has_label": False}, {"label_0": None}), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.file, finding.row) == ("label_missing", "the parquet file", 2)
    assert finding.message.startswith("the parquet file row 2: nobody said")
    assert finding.message.endswith("The same in 1 more row (3).")
    assert prepared.count == 1


def test_a_cell_that_is_refused_is_named_with_its_row(tmp_path: Path) -> None:
    prepared = prepare(pick_a_pic({}, {"caption": "fox " * 300_000}), tmp_path)
    finding = only(prepared.findings)
    assert (finding.file, finding.row) == ("the parquet file", 2)
    assert finding.message.startswith("the parquet file row 2: column 'caption' has more than")


def test_a_bad_image_in_parquet_is_named_with_its_row(tmp_path: Path) -> None:
    prepared = prepare(pick_a_pic({}, {"jpg_1": RED[:30]}, {"jpg_0": None}), tmp_path)
    assert [(one.code, one.row) for one in prepared.findings] == [("image_truncated", 2), ("image_missing", 3)]


def test_parquet_of_something_else_names_the_columns_that_are_known(tmp_path: Path) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), file)
    finding = only(prepare(file.getvalue(), tmp_path).findings)
    assert finding.code == "metadata_columns"
    assert "no column chosen" in finding.message
    assert "its columns are text, label" in finding.message


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """120 MB of images in row groups of 40 MB: Arrow never holds a whole group."""
    noise = bytes(range(256)) * 8192  # 2 MiB, which is no image
    path = tmp_path / "large.parquet"
    path.write_bytes(pick_a_pic(*[{"jpg_0": noise, "ranking_id": number} for number in range(60)], group=20))
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    for _ in read_parquet(path, Limits()).judgements:
        assert pool.bytes_allocated() - before < 80 * 2**20


def test_too_much_parquet_is_refused(tmp_path: Path) -> None:
    data = pick_a_pic(*[{"caption": f"fox {number}"} for number in range(20)])
    assert codes(prepare(data, tmp_path, Limits(archive_bytes=500))) == ["archive_limits"]
    assert codes(prepare(data, tmp_path, Limits(rows=3))) == ["archive_limits"]


@pytest.mark.parametrize("mode", ["w:", "w:gz", "zst"])
def test_tar_in_every_compression(mode: Literal["w:", "w:gz", "zst"], tmp_path: Path) -> None:
    files = {"metadata.jsonl": b'{"prompt": "p", "chosen": "a.png", "rejected": "b.png"}', "a.png": RED, "b.png": BLUE}
    data = tar_of(files.items()) if mode == "zst" else tar_of(files.items(), mode)
    if mode == "zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    assert preferred(prepare(data, tmp_path)) == [("p", "red", "blue")]


def test_a_zstandard_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    bomb = pa.Codec("zstd").compress(bytes(64 * 2**20), asbytes=True)
    prepared = prepare(bomb, tmp_path, Limits(compression_ratio_from=2**20))
    assert codes(prepared) == ["archive_limits"]
    assert [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()] == ["pairs.jsonl"]


def test_every_cut_of_a_zstandard_tar_is_a_finding(tmp_path: Path) -> None:
    data = pa.Codec("zstd").compress(tar_of([("a.png", RED)]), asbytes=True)
    for tenth in range(1, 10):
        assert codes(prepare(data[: len(data) * tenth // 10], tmp_path)) == ["archive_unreadable"]


def test_invoke_trainings_preferences(tmp_path: Path) -> None:
    rows = [
        {"image_0": "a.png", "image_1": "b.png", "prompt": "one", "prefer_0": True, "prefer_1": False},
        {"image_0": "a.png", "image_1": "b.png", "prompt": "two", "prefer_0": False, "prefer_1": True},
        {"image_0": "a.png", "image_1": "b.png", "prompt": "tie", "prefer_0": False, "prefer_1": False},
    ]
    table = "\n".join(map(json.dumps, rows)).encode()
    prepared = prepare(zip_of([("metadata.jsonl", table), ("a.png", RED), ("b.png", BLUE)]), tmp_path)
    assert prepared.format == "archive/invoke-training"
    assert preferred(prepared) == [("one", "red", "blue"), ("two", "blue", "red")]
    assert only(prepared.findings).message.startswith("metadata.jsonl: 1 pair of which neither image is preferred")


def test_hpdv2_as_pairs_in_csv(tmp_path: Path) -> None:
    table = b"user_id,prompt,image_left,image_right,pref\n3,one,a.png,b.png,1\n5,two,a.png,b.png,-1\n"
    prepared = prepare(zip_of([("pairs.csv", table), ("a.png", RED), ("b.png", BLUE)]), tmp_path)
    assert prepared.format == "archive/hpdv2"
    assert preferred(prepared) == [("one", "red", "blue"), ("two", "blue", "red")]
    assert [pair.annotator for pair in prepared.pairs] == ["3", "5"]


def hpdv2(paths: str = "file_path", **names: str) -> bytes:
    """Rows as ``train.json`` has them on the hub."""
    a, b = names.get("a", "000904704-0044.jpg"), names.get("b", "001904704-0044.jpg")
    rows = [
        {"prompt": "one", paths: [a, b], "user_hash": "u1", "human_preference": [0, 1]},
        {"prompt": "two", paths: [a, b], "user_hash": "u2", "human_preference": [1, 0]},
    ]
    return json.dumps(rows).encode()


@pytest.mark.parametrize("folder", ["train/", "", "more/train/images/"])
@pytest.mark.parametrize("top", ["", "HPDv2/"])
def test_hpdv2_as_it_is_published(folder: str, top: str, tmp_path: Path) -> None:
    images = {"000904704-0044.jpg": RED, "001904704-0044.jpg": BLUE}
    files = {f"{top}{folder}{name}": data for name, data in images.items()}
    if folder == "train/":
        files |= {f"{top}test/{name}": GREEN for name in images}  # the other split's, of the same names
    prepared = prepare(zip_of([(f"{top}train.json", hpdv2()), *files.items()]), tmp_path)
    assert prepared.format == "archive/hpdv2"
    assert preferred(prepared) == [("one", "blue", "red"), ("two", "red", "blue")]
    assert [pair.annotator for pair in prepared.pairs] == ["u1", "u2"]
    assert prepared.findings == ()


def test_hpdv2_with_the_paths_of_its_images(tmp_path: Path) -> None:
    files = [("train.json", hpdv2("image_path", a="a.png", b="b.png")), ("a.png", RED), ("b.png", BLUE)]
    prepared = prepare(zip_of(files), tmp_path)
    assert (prepared.format, preferred(prepared)) == ("archive/hpdv2", [("one", "blue", "red"), ("two", "red", "blue")])


def test_hpdv2_takes_no_image_for_another_by_a_part_of_its_name(tmp_path: Path) -> None:
    """As Label Studio's stored names are."""
    files = [("train.json", hpdv2(a="1a2b3c4d-a.png", b="b.png")), ("train/a.png", RED), ("train/b.png", BLUE)]
    assert codes(prepare(zip_of(files), tmp_path)) == ["image_missing"]


def test_an_hpdv2_name_that_two_folders_have_is_no_image(tmp_path: Path) -> None:
    files = [("train.json", hpdv2(a="a.png", b="b.png")), ("x/a.png", RED), ("y/a.png", GREEN), ("x/b.png", BLUE)]
    assert codes(prepare(zip_of(files), tmp_path)) == ["image_missing"]


def test_an_hpdv2_row_with_half_a_preference_is_no_judgement(tmp_path: Path) -> None:
    row = json.dumps([{"prompt": "one", "file_path": ["a.png", "b.png"], "human_preference": [1, 2]}]).encode()
    prepared = prepare(zip_of([("train.json", row), ("a.png", RED), ("b.png", BLUE)]), tmp_path)
    assert "human_preference has to be of 1 (preferred) and 0" in only(prepared.findings).message


def test_a_table_is_known_by_its_first_row_that_says_it(tmp_path: Path) -> None:
    rows = [*json.loads(hpdv2(a="a.png", b="b.png")), {"prompt": "three"}]
    files = [("train.json", json.dumps(rows).encode()), ("a.png", RED), ("b.png", BLUE)]
    prepared = prepare(zip_of(files), tmp_path)
    assert prepared.format == "archive/hpdv2"
    assert preferred(prepared) == [("one", "blue", "red"), ("two", "red", "blue")]


def test_an_hpdv2_row_without_its_images_is_named(tmp_path: Path) -> None:
    row = json.dumps([{"prompt": "one", "human_preference": [0, 1]}]).encode()
    prepared = prepare(zip_of([("train.json", row), ("a.png", RED)]), tmp_path)
    assert only(prepared.findings).message.startswith("train.json row 1: file_path and human_preference have to be")


def annotation(selected: str | None, by: object = 1, **more: object) -> dict[str, Any]:
    result = [
        {"value": {"selected": selected}, "id": "x", "from_name": "pw", "to_name": "image1,image2", "type": "pairwise"}
    ]
    return {"id": 9, "completed_by": by, "result": result if selected else [], "was_cancelled": False} | more


def label_studio(*annotations: dict[str, Any], **data: str) -> dict[str, Any]:
    shown = {"image1": "/data/upload/3/1a2b3c4d-a.png", "image2": "/data/upload/3/5e6f7a8b-b.png", "prompt": "a fox"}
    return {"id": 1, "annotations": list(annotations), "predictions": [], "data": shown | data, "project": 3}


def studio_archive(*tasks: dict[str, Any]) -> bytes:
    export = json.dumps(list(tasks)).encode()
    return zip_of([("project-3-at-2026-01-01.json", export), ("images/a.png", RED), ("images/b.png", BLUE)])


def test_label_studios_export(tmp_path: Path) -> None:
    prepared = prepare(
        studio_archive(
            label_studio(annotation("left"), annotation("right", {"id": 2, "email": "kim@example.org"})),
            label_studio(annotation("left", was_cancelled=True)),
            label_studio(annotation("right"), prompt="a hen"),
        ),
        tmp_path,
    )
    assert prepared.format == "archive/label-studio"
    assert preferred(prepared) == [("a fox", "red", "blue"), ("a fox", "blue", "red"), ("a hen", "blue", "red")]
    assert [pair.annotator for pair in prepared.pairs] == ["1", "kim@example.org", "1"]
    assert prepared.report.dropped == {"label_missing": 1}


def test_what_a_label_studio_annotator_said_besides_the_comparison_is_no_judgement(tmp_path: Path) -> None:
    judged = annotation("left")
    choice = {"value": {"choices": ["blurred"]}, "id": "y", "from_name": "why", "to_name": "image1", "type": "choices"}
    judged["result"] = ["a note", choice, *judged["result"]]
    prepared = prepare(studio_archive(label_studio(judged)), tmp_path)
    assert (prepared.findings, preferred(prepared)) == ((), [("a fox", "red", "blue")])


def test_label_studio_tags_that_are_not_named_like_their_fields_are_refused_not_guessed(tmp_path: Path) -> None:
    task = label_studio(annotation("left"))
    task["data"] = {"left_url": "a.png", "right_url": "b.png", "prompt": "p"}
    finding = prepare(studio_archive(task), tmp_path).findings[0]
    assert finding.code == "row_invalid"
    assert "no field says which image is left and which right (fields: left_url, right_url, prompt)" in finding.message
    assert "labelling configuration" in finding.message


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/data/upload/3/1a2b3c4d-a#1.png", "data/upload/3/1a2b3c4d-a#1.png"),
        ("/data/local-files/?d=deep/a.png", "deep/a.png"),
        ("s3://bucket/deep/a.png", "deep/a.png"),
        ("https://example.org/deep/a%20b.png", "deep/a b.png"),
        ("deep/a.png", "deep/a.png"),
        ("http://[", "http://["),
    ],
)
def test_label_studios_paths(given: str, path: str) -> None:
    assert path_of(given) == path


@pytest.mark.parametrize(("chosen", "rejected", "root"), [("chosen", "rejected", ""), ("w", "l", "my pairs/")])
def test_two_folders_with_captions(chosen: str, rejected: str, root: str, tmp_path: Path) -> None:
    files = {
        f"{root}{chosen}/one.png": RED,
        f"{root}{chosen}/one.txt": b"a fox\n",
        f"{root}{rejected}/one.jpg": encoded_jpeg(),
        f"{root}{chosen}/two.png": RED,
        f"{root}{rejected}/two.png": BLUE,
        f"{root}{rejected}/two.txt": b"a hen",
        f"{root}{chosen}/lonely.png": RED,
        f"{root}{rejected}/other.png": BLUE,
    }
    prepared = prepare(zip_of(files.items()), tmp_path, policy=Policy(invalid_rows="drop"))
    assert prepared.format == "archive/two-folders"
    assert [pair.prompt for pair in prepared.pairs] == ["a fox", "a hen"]
    assert pixel(prepared.images[prepared.pairs[1].rejected or ""])[:3] == (0, 0, 255)
    assert [(one.code, one.severity, one.row) for one in prepared.findings] == [
        ("image_missing", "warning", 1),
        ("image_missing", "warning", 3),
    ]
    assert prepared.usable


def encoded_jpeg() -> bytes:
    from PIL import Image

    return encoded(Image.new("RGB", (96, 64), (0, 0, 255)), "JPEG")


def test_a_subjects_folder_with_captions(tmp_path: Path) -> None:
    prepared = prepare(zip_of([("zibu/1.png", RED), ("zibu/1.txt", b"a zibu"), ("zibu/2.png", BLUE)]), tmp_path)
    assert prepared.format == "archive/image-folder"
    assert [(one.code, one.row) for one in prepared.findings][:1] == [("prompt_empty", 2)]


def test_a_subjects_folder_named_with_its_prompt(tmp_path: Path) -> None:
    prepared = prepare(zip_of([("img/10_zibu creature/1.png", RED), ("img/10_zibu creature/2.png", BLUE)]), tmp_path)
    assert preferred(prepared) == [("zibu creature", "red", None), ("zibu creature", "blue", None)]
    assert prepared.usable


def test_a_prompt_given_with_the_upload_serves_images_without_one(tmp_path: Path) -> None:
    archive = zip_of([("1.png", RED), ("2.png", BLUE), ("2.txt", b"its own")])
    prepared = prepare(archive, tmp_path, policy=Policy(prompt="a photo of zibu"))
    assert [pair.prompt for pair in prepared.pairs] == ["a photo of zibu", "its own"]


TIED = pick_a_pic({}, {"label_0": 0.5, "label_1": 0.5, "caption": "a tie"})


def test_ties_kept_in_both_orders_contradict_nothing(tmp_path: Path) -> None:
    prepared = prepare(TIED, tmp_path, policy=Policy(ties="both"))
    assert preferred(prepared)[1:] == [("a tie", "red", "blue"), ("a tie", "blue", "red")]
    assert codes(prepared) == ["pair_tied"]
    assert (prepared.report.rows, prepared.report.kept) == (2, 3)


def test_ties_as_errors_name_their_row(tmp_path: Path) -> None:
    prepared = prepare(TIED, tmp_path, policy=Policy(ties="error"))
    assert (only(prepared.findings).code, only(prepared.findings).row, prepared.usable) == ("pair_tied", 2, False)


def test_strict_makes_every_warning_an_error(tmp_path: Path) -> None:
    assert prepare(TIED, tmp_path).usable
    strict = prepare(TIED, tmp_path, policy=Policy(strict=True))
    assert ([one.severity for one in strict.findings], strict.usable) == (["error"], False)


def test_invalid_rows_can_be_left_out(tmp_path: Path) -> None:
    data = pick_a_pic({}, {"jpg_1": RED[:30]}, {"caption": ""})
    assert not prepare(data, tmp_path).usable
    lenient = prepare(data, tmp_path, policy=Policy(invalid_rows="drop"))
    assert lenient.usable
    assert lenient.report.dropped == {"image_truncated": 1, "prompt_empty": 1}


def test_nothing_left_is_an_error_whatever_the_policy(tmp_path: Path) -> None:
    prepared = prepare(pick_a_pic({"jpg_1": RED[:30]}), tmp_path, policy=Policy(invalid_rows="drop"))
    assert codes(prepared) == ["image_truncated", "pairs_none"]
    assert not prepared.usable


def test_a_json_list_that_does_not_end_is_unreadable(tmp_path: Path) -> None:
    for cut in (b'[{"prompt": "p", "chosen": "a.png"}', b"[1, 2", b'[{"a": '):
        prepared = prepare(zip_of([("metadata.json", cut), ("a.png", RED)]), tmp_path)
        assert "metadata_unreadable" in codes(prepared)


def test_an_empty_json_list_is_empty(tmp_path: Path) -> None:
    assert codes(prepare(zip_of([("metadata.json", b"[ ]")]), tmp_path)) == ["metadata_empty"]


BOTH = {"chosen/fox.png": RED, "chosen/fox.txt": b"a fox", "rejected/fox.png": BLUE}


@pytest.mark.parametrize("root", ["", "pairs/", "deep/er/", "Mixed/"])
def test_two_folders_are_found_wherever_they_are_and_whatever_lies_beside_them(root: str, tmp_path: Path) -> None:
    """Else rejected images would be taken for pictures to imitate."""
    files = {f"{root}{name}".replace("Mixed/c", "C").replace("Mixed/r", "R"): data for name, data in BOTH.items()}
    aside = {"README.md": b"x", f"{root}notes.json": b"{}", f"{root}chosen/fox.json": b"{}", "other/old.json": b"{}"}
    prepared = prepare(zip_of((aside | files).items()), tmp_path)
    assert preferred(prepared) == [("a fox", "red", "blue")]


@pytest.mark.parametrize("alone", ["rejected", "chosen", "L"])
def test_one_of_the_two_folders_alone_is_refused(alone: str, tmp_path: Path) -> None:
    archive = zip_of([(f"{alone}/fox.png", RED), (f"{alone}/fox.txt", b"a fox"), ("more/a.png", BLUE)])
    assert codes(prepare(archive, tmp_path, policy=Policy(prompt="p"))) == ["metadata_missing"]


def test_two_files_of_one_name_in_a_folder_are_not_paired_by_chance(tmp_path: Path) -> None:
    finding = only(prepare(zip_of((BOTH | {"chosen/fox.jpg": encoded_jpeg()}).items()), tmp_path).findings[:1])
    assert (finding.code, "chosen/fox.jpg and chosen/fox.png" in finding.message) == ("row_invalid", True)


def test_a_format_that_cannot_be_used_says_so_and_is_not_passed_over(tmp_path: Path) -> None:
    files = {"chosen/fox.png": RED, "chosen/fox.txt": b"a fox", "rejected/fox.gif": b"GIF89a"}
    assert codes(prepare(zip_of(files.items()), tmp_path)) == ["image_format"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "image_0": "a.png", "image_1": None, "prefer_0": True, "prefer_1": False},
        {"prompt": "p", "image_0": "a.png", "image_1": "b.png", "prefer_0": False, "prefer_1": "perhaps"},
        {"prompt": "p", "image_left": "a.png", "image_right": " ", "pref": 1},
        {"prompt": "p", "image_left": "a.png", "image_right": "b.png", "pref": 7},
        {"prompt": "p", "image_path": ["a.png", None], "human_preference": [1, 0]},
        {"prompt": "p", "image_path": ["a.png", "b.png"], "human_preference": ["inf", 7]},
    ],
)
def test_a_comparison_that_lacks_an_image_or_a_preference_is_no_pair(row: dict[str, Any], tmp_path: Path) -> None:
    table = json.dumps(row).encode()
    prepared = prepare(zip_of([("metadata.jsonl", table), ("a.png", RED), ("b.png", BLUE)]), tmp_path)
    assert only(prepared.findings).severity == "error"
    assert prepared.count == 0


def test_a_name_that_stands_twice_cannot_swap_a_preference(tmp_path: Path) -> None:
    row = b'{"prompt": "p", "image_0": "a.png", "image_1": "b.png", "prefer_0": true, "prefer_1": 0, "prefer_0": 0}'
    prepared = prepare(zip_of([("metadata.jsonl", row), ("a.png", RED), ("b.png", BLUE)]), tmp_path)
    assert "names something twice" in only(prepared.findings).message
    file = io.BytesIO()
    columns = {name: [value] for name, value in (("caption", "p"), ("jpg_0", RED), ("jpg_1", BLUE), ("label_0", 1.0))}
    pq.write_table(pa.table([*columns.values(), [0.0]], names=[*columns, "label_0"]), file)
    assert codes(prepare(file.getvalue(), tmp_path)) == ["metadata_columns"]


@pytest.mark.parametrize("rejected", [{"bytes": None, "path": "b.png"}, "b.png"])
def test_parquet_that_names_images_instead_of_holding_them_is_refused(rejected: object, tmp_path: Path) -> None:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"prompt": "p", "chosen": RED, "rejected": rejected}]), file)
    prepared = prepare(file.getvalue(), tmp_path)
    assert codes(prepared)[0] in ("row_invalid", "metadata_columns")
    assert not prepared.usable


BOMB = """
import pyarrow as pa, pyarrow.parquet as pq
cell = pa.array([bytes(2**28)], pa.large_binary())
table = pa.table({"chosen": cell, "prompt": ["p"]})
pq.write_table(table, "bomb.parquet", compression="zstd", use_dictionary=False)
"""
READ = """
import resource
from pathlib import Path
from intake import Limits, prepare_upload
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
limits = Limits(compression_ratio=10**9, archive_bytes=2**40, parquet_memory=2**27)
prepared = prepare_upload(Path("bomb.parquet"), Path("work"), limits)
print([finding.code for finding in prepared.findings], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_cell_that_unpacks_to_more_than_memory_may_take_is_refused(tmp_path: Path) -> None:
    """A quarter of a GiB in a few kB. The file's own figures say so; here they are not looked at, as a file may lie."""
    (tmp_path / "work").mkdir()
    for program in (BOMB, READ):  # processes of their own: what Arrow once had it takes again without asking
        ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    found, _, grown = ran.stdout.rpartition(" ")
    assert found == "['archive_limits']"
    assert int(grown) < 200_000  # kB
    honest = (tmp_path / "bomb.parquet").read_bytes()
    assert codes(prepare(honest, tmp_path)) == ["archive_limits"]


def test_rows_that_are_none_count_and_do_not_pile_up(tmp_path: Path) -> None:
    archive = zip_of([("metadata.jsonl", b"1\n" * 5000)])
    prepared = prepare(archive, tmp_path, Limits(rows=1000, findings=10))
    assert codes(prepared) == ["archive_limits", "row_invalid"]
    assert "The same in 1,000 more rows (2-1001)" in prepared.findings[1].message
    assert prepared.report.rows == 1001


def test_what_a_row_shows_of_the_archive_stays_an_error_whatever_becomes_of_rows(tmp_path: Path) -> None:
    nested = zip_of([("metadata.jsonl", b'{"prompt": "p", "chosen": "a.png"}'), ("a.png", zip_of([("x", b"y")]))])
    prepared = prepare(nested, tmp_path, policy=Policy(invalid_rows="drop"))
    assert [(one.code, one.severity) for one in prepared.findings][:1] == [("archive_limits", "error")]
    tied = prepare(TIED, tmp_path, policy=Policy(invalid_rows="drop", ties="error"))
    assert not tied.usable


def test_label_studio_finds_stored_names_and_never_one_file_for_two_uploads(tmp_path: Path) -> None:
    export = json.dumps([label_studio(annotation("left"))]).encode()
    stored = [("a/1a2b3c4d-a.png", RED), ("a/5e6f7a8b-b.png", BLUE), ("a.png", GREEN)]
    assert preferred(prepare(zip_of([("export.json", export), *stored]), tmp_path)) == [("a fox", "red", "blue")]
    twins = label_studio(annotation("left"), image1="/data/upload/3/11111111-b.png")
    archive = zip_of([("export.json", json.dumps([twins]).encode()), ("a.png", RED), ("b.png", BLUE)])
    assert codes(prepare(archive, tmp_path)) == ["image_missing"]


def test_damaged_zstandard_leaves_no_memory_behind(tmp_path: Path) -> None:
    data = bytearray(pa.Codec("zstd").compress(tar_of([("a.png", RED)]), asbytes=True))
    data[40] ^= 0xFF
    prepare(bytes(data), tmp_path)
    before = pa.total_allocated_bytes()
    for _ in range(3):
        prepare(bytes(data), tmp_path)
    assert pa.total_allocated_bytes() == before
