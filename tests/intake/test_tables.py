from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from intake import PreparedUpload, Progress, prepare_upload
from intake.formats.tables.text import read_jsonl
from intake.limits import Limits
from tests.intake.build import ROW, codes, good_files, jsonl, only, png, prepare, zip_of

pytestmark = pytest.mark.unit


def prepare_metadata(
    data: bytes, tmp_path: Path, name: str = "metadata.jsonl", limits: Limits | None = None
) -> PreparedUpload:
    files = good_files()
    del files["metadata.jsonl"]
    return prepare(zip_of((files | {name: data}).items()), tmp_path, limits)


def line(**changed: object) -> bytes:
    return jsonl({key: value for key, value in (ROW | changed).items() if value is not ...})


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"prompt": ...}, "prompt_empty", "column 'prompt' is missing or empty"),
        ({"prompt": " \n"}, "prompt_empty", "column 'prompt' is missing or empty"),
        ({"prompt": None}, "prompt_empty", "column 'prompt' is missing or empty"),
        ({"prompt": 5}, "row_invalid", "column 'prompt'"),
        ({"prompt": "a\0b"}, "row_invalid", "NUL"),
        ({"prompt": "\ud800"}, "row_invalid", "column 'prompt'"),
        ({"prompt": "x" * 4001}, "prompt_too_long", "4,000 characters"),
        ({"chosen": ...}, "row_invalid", "column 'chosen' is missing or empty"),
        ({"chosen": ["a"]}, "row_invalid", "column 'chosen'"),
        ({"rejected": 5}, "row_invalid", "column 'rejected'"),
        ({"rejected": "x" * 1025}, "row_invalid", "column 'rejected'"),
        ({"split": "third"}, "row_invalid", "'train' or 'validation': third"),
        ({"weight": 0}, "row_invalid", "greater than 0"),
        ({"weight": float("inf")}, "row_invalid", "column 'weight'"),
        ({"seed": -2}, "row_invalid", "column 'seed'"),
        ({"seed": 2**63}, "row_invalid", "column 'seed'"),
        ({"annotator": "x" * 201}, "row_invalid", "column 'annotator'"),
    ],
)
def test_a_wrong_column_is_named_with_its_row(
    changed: dict[str, object], code: str, words: str, tmp_path: Path
) -> None:
    finding = only(prepare_metadata(line() + line(**changed), tmp_path).findings)
    assert (finding.code, finding.severity, finding.file, finding.row) == (code, "error", "metadata.jsonl", 2)
    assert finding.message.startswith("metadata.jsonl row 2: ")
    assert words in finding.message
    assert finding.message.isprintable()


def test_lines_are_read_one_at_a_time() -> None:
    """A small archive may unpack to 64 MiB of line feeds: a list of its lines would take ten times that."""
    data = b"\n" * 2**20
    tracemalloc.start()
    assert list(read_jsonl(data, "metadata.jsonl")) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data)


def test_all_columns_of_a_row_are_checked(tmp_path: Path) -> None:
    prepared = prepare_metadata(line() + line(prompt=..., chosen=..., weight=-1), tmp_path)
    assert codes(prepared) == ["prompt_empty", "row_invalid", "row_invalid"]


@pytest.mark.parametrize(
    "bad",
    [b"[1, 2]", b'"text"', b"null", b"{", b"\xff\xfe{", b"[" * 100_000, b"1" * 5000],
    ids=["array", "string", "null", "cut", "not UTF-8", "deep", "huge number"],
)
def test_a_line_that_is_no_json_object_is_named(bad: bytes, tmp_path: Path) -> None:
    prepared = prepare_metadata(line() + b"\n" + bad + b"\n" + line(prompt="another"), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.row) == ("row_invalid", 3)
    assert "line 3" in finding.message
    assert [pair.row for pair in prepared.pairs] == [1, 4]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_empty_metadata_is_an_error(name: str, data: bytes, tmp_path: Path) -> None:
    prepared = prepare_metadata(data, tmp_path, name)
    assert codes(prepared) == ["metadata_empty"]
    assert not prepared.usable


def test_a_csv_header_alone_is_empty(tmp_path: Path) -> None:
    assert codes(prepare_metadata(b"prompt,chosen,rejected\n", tmp_path, "metadata.csv")) == ["metadata_empty"]


def test_a_csv_without_a_required_column_is_one_finding(tmp_path: Path) -> None:
    data = b"prompt,rejected\n" + b"p,images/a.png\n" * 50
    finding = only(prepare_metadata(data, tmp_path, "metadata.csv").findings)
    assert (finding.code, finding.file) == ("metadata_columns", "metadata.csv")
    assert "no column chosen" in finding.message


def test_a_csv_column_given_twice_is_refused(tmp_path: Path) -> None:
    data = b"prompt,chosen,rejected,chosen\np,images/a.png,images/b.png,images/b.png\n"
    assert codes(prepare_metadata(data, tmp_path, "metadata.csv")) == ["metadata_columns"]


def test_csv_rows_with_another_number_of_cells_are_named(tmp_path: Path) -> None:
    data = b"prompt,chosen,rejected\np,images/a.png,images/b.png\na, prompt,images/a.png,images/b.png\np\n"
    prepared = prepare_metadata(data, tmp_path, "metadata.csv")
    assert [(finding.code, finding.row) for finding in prepared.findings] == [("row_invalid", 2), ("row_invalid", 3)]
    assert "4 cells where the header has 3" in prepared.findings[0].message


@pytest.mark.parametrize(
    "data", ["prompt,chosen,rejected\ncaf\u00e9,a,b\n".encode("latin-1"), b'prompt,chosen,rejected\n"open']
)
def test_a_csv_that_cannot_be_read_is_an_error(data: bytes, tmp_path: Path) -> None:
    finding = only(prepare_metadata(data, tmp_path, "metadata.csv").findings)
    assert (finding.code, finding.file) == ("metadata_unreadable", "metadata.csv")


def test_missing_metadata_names_the_columns_to_add(tmp_path: Path) -> None:
    finding = only(prepare(zip_of([("a/b/metadata.jsonl", line()), ("a.png", png())]), tmp_path).findings)
    assert finding.code == "metadata_missing"
    assert "prompt, chosen and, where there is one, rejected" in finding.message


@pytest.mark.parametrize("names", [("metadata.jsonl", "metadata.csv"), ("a/metadata.jsonl", "b/metadata.jsonl")])
def test_two_metadata_files_are_ambiguous(names: tuple[str, str], tmp_path: Path) -> None:
    prepared = prepare(zip_of([(name, line()) for name in names]), tmp_path)
    assert codes(prepared) == ["metadata_ambiguous"]


def test_metadata_at_the_top_wins_over_a_folder(tmp_path: Path) -> None:
    files = good_files() | {"old/metadata.jsonl": b"not read"}
    assert prepare(zip_of(files.items()), tmp_path).usable


def test_oversized_metadata_is_refused_unread(tmp_path: Path) -> None:
    prepared = prepare_metadata(line() * 100, tmp_path, limits=Limits(metadata_bytes=1000))
    assert codes(prepared) == ["metadata_unreadable"]


def test_numbers_as_text_are_taken(tmp_path: Path) -> None:
    prepared = prepare_metadata(line(weight="2.5", seed="11"), tmp_path)
    assert [(pair.weight, pair.seed) for pair in prepared.pairs] == [(2.5, 11)]


@pytest.mark.parametrize(
    ("name", "data", "total"),
    [
        ("metadata.jsonl", jsonl(ROW, ROW) + b"\n\n" + jsonl(ROW), 3),
        ("metadata.csv", b'prompt,chosen\n"a\nb",images/a.png\n\nc,images/a.png\n', 2),
        ("metadata.csv", b'prompt,chosen\nc,images/a.png\n"a"b,images/a.png\n', None),
        ("metadata.json", json.dumps([ROW, ROW]).encode(), None),
    ],
    ids=["JSON lines", "CSV", "damaged CSV", "JSON list"],
)
def test_progress_says_of_how_many_rows_where_the_table_tells(
    name: str, data: bytes, total: int | None, tmp_path: Path
) -> None:
    files = {path: content for path, content in good_files().items() if path != "metadata.jsonl"}
    (tmp_path / "upload").write_bytes(zip_of((files | {name: data}).items()))
    fields: list[Progress] = []
    prepare_upload(tmp_path / "upload", tmp_path / "work", progress=fields.append)
    assert {one.total for one in fields} == {total}
    assert total is None or fields[-1].rows == total


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert prepare_metadata(b"\xef\xbb\xbf" + json.dumps(ROW).encode(), tmp_path).usable
