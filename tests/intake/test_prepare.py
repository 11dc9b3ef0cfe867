from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from intake import PreparedPair
from intake.archives.entries import Entry
from intake.images.image_folder import ImageFolder
from intake.limits import Limits
from tests.intake.build import ROW, codes, good_files, jsonl, only, pixel, png, prepare, tar_of, zip_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "pack",
    [
        lambda files: zip_of(files),
        lambda files: zip_of(files, compression=0),
        lambda files: tar_of(files),
        lambda files: tar_of(files, format_=tarfile.GNU_FORMAT),
        lambda files: tar_of(files, "w:gz"),
    ],
    ids=["zip", "stored zip", "pax tar", "GNU tar", "tar.gz"],
)
def test_every_container_gives_the_same_pair(
    pack: Callable[[Iterable[tuple[str, bytes]]], bytes], tmp_path: Path
) -> None:
    prepared = prepare(pack(good_files().items()), tmp_path)
    assert prepared.findings == ()
    assert prepared.usable
    assert prepared.format == "archive/metadata.jsonl"
    [pair] = prepared.pairs
    assert (pair.row, pair.prompt, pair.split, pair.weight) == (1, "a red fox", None, None)
    assert pixel(prepared.images[pair.chosen]) == (255, 0, 0)
    assert pair.rejected is not None
    assert pixel(prepared.images[pair.rejected]) == (0, 0, 255)


def test_the_pairs_document_names_each_sides_own_image(tmp_path: Path) -> None:
    swapped = ROW | {"chosen": ROW["rejected"], "rejected": ROW["chosen"], "prompt": "a blue fox"}
    prepared = prepare(zip_of((good_files() | {"metadata.jsonl": jsonl(ROW, swapped)}).items()), tmp_path)
    lines = [json.loads(line) for line in prepared.pairs_file.read_bytes().splitlines()]
    colours = [tuple(pixel(prepared.images[line[side]]) for side in ("chosen", "rejected")) for line in lines]
    assert colours == [((255, 0, 0), (0, 0, 255)), ((0, 0, 255), (255, 0, 0))]


def test_images_are_files_named_by_their_digest_and_nothing_else_stays(tmp_path: Path) -> None:
    prepared = prepare(tar_of(good_files().items(), "w:gz"), tmp_path)
    written = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert sorted(written) == sorted([*prepared.images.values(), prepared.pairs_file])
    for sha256, path in prepared.images.items():
        assert path.name == sha256
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def test_metadata_after_the_images_and_in_a_common_folder_is_found(tmp_path: Path) -> None:
    files = {f"./my pairs/{name}": data for name, data in reversed(good_files().items())}
    prepared = prepare(tar_of(files.items(), "w:gz"), tmp_path)
    assert prepared.findings == ()
    assert len(prepared.pairs) == 1


def test_paths_may_be_given_from_the_top_of_the_archive(tmp_path: Path) -> None:
    files = {f"top/{name}": data for name, data in good_files().items()}
    files["top/metadata.jsonl"] = jsonl(ROW | {"chosen": "top/images/a.png", "rejected": "./images//b.png"})
    assert prepare(zip_of(files.items()), tmp_path).usable


def test_csv_rows_carry_every_optional_column(tmp_path: Path) -> None:
    text = (
        "prompt,chosen,rejected,split,weight,annotator,seed\r\n"
        '"a fox, ""red""",images/a.png,images/b.png,validation,0.5,kim,7\r\n'
        "plain,images/b.png,images/a.png,,,,\r\n"
    )
    files = good_files() | {"metadata.csv": b"\xef\xbb\xbf" + text.encode()}
    del files["metadata.jsonl"]
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert codes(prepared) == ["image_leaked"]
    assert prepared.format == "archive/metadata.csv"
    first, second = prepared.pairs
    assert first.rejected is not None
    assert first == PreparedPair(1, 'a fox, "red"', first.chosen, first.rejected, "validation", 0.5, "kim", 7)
    assert second == PreparedPair(2, "plain", first.rejected, first.chosen)


def test_system_files_are_ignored(tmp_path: Path) -> None:
    junk = {"__MACOSX/images/._a.png": b"x", "images/.DS_Store": b"x", "Thumbs.db": b"x", "images/._more.zip": b"x"}
    assert prepare(zip_of((junk | good_files()).items()), tmp_path).findings == ()


def test_an_image_that_many_rows_name_is_read_once(tmp_path: Path) -> None:
    reads = []

    def read() -> bytes:
        reads.append(1)
        return png()

    entry = Entry("a.png", "file", len(png()), read)
    images = ImageFolder(tmp_path, Limits())
    assert len({images.add(entry) for _ in range(5)}) == 1
    assert len(reads) == 1


def test_a_missing_image_is_named_with_file_row_and_column(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"rejected": "images/nowhere.png"}]
    prepared = prepare(zip_of((good_files() | {"metadata.jsonl": jsonl(*rows)}).items()), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.severity, finding.file, finding.row) == (
        "image_missing",
        "error",
        "images/nowhere.png",
        2,
    )
    assert finding.message.startswith("metadata.jsonl row 2: rejected image images/nowhere.png is not in the archive")
    assert len(prepared.pairs) == 1
    assert not prepared.usable


def test_a_path_with_backslashes_is_the_one_with_slashes(tmp_path: Path) -> None:
    row = ROW | {"chosen": "images\\a.png"}
    assert prepare(zip_of((good_files() | {"metadata.jsonl": jsonl(row)}).items()), tmp_path).findings == ()


@pytest.mark.parametrize("path", ["Images\\a.png", "Images/A.PNG"])
def test_a_near_miss_of_a_path_is_pointed_out(path: str, tmp_path: Path) -> None:
    prepared = prepare(zip_of((good_files() | {"metadata.jsonl": jsonl(ROW | {"chosen": path})}).items()), tmp_path)
    assert "did you mean images/a.png?" in only(prepared.findings).message


def test_decomposed_and_composed_names_meet(tmp_path: Path) -> None:
    files = good_files() | {"images/e\u0301.png": png((0, 255, 0))}
    files["metadata.jsonl"] = jsonl(ROW | {"chosen": "images/\u00e9.png"})
    assert prepare(zip_of(files.items()), tmp_path).usable


def test_identical_images_of_a_pair_are_an_error_even_in_two_files(tmp_path: Path) -> None:
    files = good_files() | {"images/b.png": png((255, 0, 0))}
    finding = only(prepare(zip_of(files.items()), tmp_path).findings)
    assert (finding.code, finding.severity, finding.row) == ("pair_identical", "error", 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"this is a text file", "image_unreadable"),
        (b"", "image_truncated"),
        (png()[:40], "image_truncated"),
        (zip_of([("a.txt", b"a")]), "archive_limits"),
    ],
    ids=["text", "empty", "cut", "nested archive"],
)
def test_a_bad_image_file_is_named_with_its_row(data: bytes, code: str, tmp_path: Path) -> None:
    prepared = prepare(zip_of((good_files() | {"images/b.png": data}).items()), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.file, finding.row) == (code, "images/b.png", 1)
    assert "metadata.jsonl row 1: rejected image images/b.png" in finding.message
    assert prepared.pairs == ()


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    files = good_files() | {"../escape.png": png(), "images/cut.png": png()[:50]}
    files["metadata.jsonl"] = jsonl(
        ROW | {"prompt": ""}, ROW | {"chosen": "images/cut.png"}, ROW | {"chosen": "none.png"}, ROW
    )
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert codes(prepared) == ["archive_path", "prompt_empty", "image_truncated", "image_missing"]
    assert [pair.row for pair in prepared.pairs] == [4]


def test_findings_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows = [ROW | {"chosen": f"{number}.png"} for number in range(8)]
    archive = zip_of((good_files() | {"metadata.jsonl": jsonl(*rows)}).items())
    prepared = prepare(archive, tmp_path, Limits(findings=5))
    assert codes(prepared) == ["image_missing"] * 5 + ["findings_omitted"]
    assert prepared.findings[-1].message.startswith("Not listed: 3 more errors and 0 more warnings")


def chosen_only(**row: object) -> dict[str, object]:
    return {name: value for name, value in ROW.items() if name != "rejected"} | row


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metadata.jsonl", jsonl(chosen_only(), chosen_only(prompt="another"))),
        ("metadata.jsonl", jsonl(chosen_only(rejected=None), chosen_only(rejected=None, prompt="another"))),
        ("metadata.csv", b"prompt,chosen\nred,images/a.png\nblue,images/b.png\n"),
        ("metadata.csv", b"prompt,chosen,rejected\nred,images/a.png,\nblue,images/b.png, \n"),
    ],
    ids=["absent", "null", "no column", "empty cells"],
)
def test_pairs_without_a_rejected_image_are_usable_and_told_once(name: str, data: bytes, tmp_path: Path) -> None:
    files = {path: content for path, content in good_files().items() if path != "metadata.jsonl"}
    prepared = prepare(zip_of((files | {name: data}).items()), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.severity, finding.file, finding.row) == ("rejected_missing", "warning", name, None)
    assert finding.message.startswith(f"{name}: 2 of 2 pairs without a rejected image; the base model generates")
    assert prepared.usable
    assert [pair.rejected for pair in prepared.pairs] == [None, None]
    assert {pair.chosen for pair in prepared.pairs} <= prepared.images.keys()


def test_a_pair_without_a_rejected_image_that_stands_twice_is_told_as_repeated(tmp_path: Path) -> None:
    archive = zip_of((good_files() | {"metadata.jsonl": jsonl(chosen_only(), chosen_only())}).items())
    prepared = prepare(archive, tmp_path)
    assert codes(prepared) == ["pair_repeated", "rejected_missing"]
    assert prepared.findings[0].row == 2


def test_some_pairs_may_have_a_rejected_image_and_others_none(tmp_path: Path) -> None:
    rows = jsonl(ROW, chosen_only(prompt="another"), ROW | {"rejected": "images/a.png", "prompt": "a third"})
    prepared = prepare(zip_of((good_files() | {"metadata.jsonl": rows}).items()), tmp_path)
    assert codes(prepared) == ["pair_identical", "rejected_missing"]
    assert "1 of 2 pairs" in prepared.findings[-1].message
    first, second = prepared.pairs
    assert (first.rejected is None, second.rejected is None) == (False, True)


def test_a_rejected_image_that_is_named_but_missing_is_no_pair_without_one(tmp_path: Path) -> None:
    files = {name: data for name, data in good_files().items() if name != "images/b.png"}
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert codes(prepared) == ["image_missing"]
    assert prepared.pairs == ()


def test_a_misspelt_column_is_told_beside_what_it_leaves_without(tmp_path: Path) -> None:
    rows = jsonl(chosen_only() | {"rejectd": "images/b.png"})
    prepared = prepare(zip_of((good_files() | {"metadata.jsonl": rows}).items()), tmp_path)
    assert codes(prepared) == ["column_unknown", "rejected_missing"]


def test_warnings_leave_the_upload_usable(tmp_path: Path) -> None:
    files = good_files() | {"metadata.jsonl": jsonl(ROW | {"Splitt": "train"})}
    prepared = prepare(zip_of(files.items()), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.severity) == ("column_unknown", "warning")
    assert "'Splitt' is not read; did you mean 'split'?" in finding.message
    assert prepared.usable


def test_an_image_over_the_size_limit_is_refused_unread(tmp_path: Path) -> None:
    big = png(size=(400, 400))
    prepared = prepare(zip_of((good_files() | {"images/a.png": big}).items()), tmp_path, Limits(image_bytes=300))
    assert len(big) > 200
    assert codes(prepared) == ["image_too_large"]


def test_texts_of_findings_can_be_stored_and_shown(tmp_path: Path) -> None:
    row = ROW | {"chosen": "bad\u202e\n\u2028name.png"}
    prepared = prepare(zip_of((good_files() | {"metadata.jsonl": jsonl(row)}).items()), tmp_path)
    finding = only(prepared.findings)
    assert finding.message.isprintable()
    assert json.loads(json.dumps(finding.file)) == "bad\\u202e\\n\\u2028name.png"
