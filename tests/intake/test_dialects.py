"""Tables as spreadsheets, pandas, ``datasets`` and people write them: read, or refused with the cause."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from intake import PreparedUpload
from intake.limits import Limits
from tests.intake.build import codes, jsonl, only, prepare, zip_of
from tests.intake.colours import IMAGES, numbered, pairs

pytestmark = pytest.mark.unit
ROW = {"prompt": "a fox", "chosen": "0.png", "rejected": "1.png"}
FOX, HEN = ("a fox", 0, 1), ("a hen", 2, 3)


def read(name: str, data: str | bytes, tmp_path: Path, limits: Limits | None = None) -> PreparedUpload:
    content = data.encode() if isinstance(data, str) else data
    return prepare(zip_of((IMAGES | {name: content}).items()), tmp_path, limits)


CSV = {
    "semicolons": "prompt;chosen;rejected\na fox;0.png;1.png\n",
    "semicolons and commas": "prompt;chosen;rejected\n\"a fox\";0.png;1.png\n",
    "tabs": "prompt\tchosen\trejected\na fox\t0.png\t1.png\n",
    "bars": "prompt|chosen|rejected\na fox|0.png|1.png\n",
    "sep=;": "sep=;\nprompt;chosen;rejected\na fox;0.png;1.png\n",
    "SEP=tab": "SEP=\t\r\nprompt\tchosen\trejected\r\na fox\t0.png\t1.png\r\n",
    "quoted sep": "prompt,chosen,rejected\n\"a fox\",\"0.png\",\"1.png\"\n",
    "mark": "\ufeff\"prompt\",chosen,rejected\na fox,0.png,1.png\n",
    "capitals": "Prompt,CHOSEN,Rejected\na fox,0.png,1.png\n",
    "spaces": " prompt , Chosen Image , rejected-image \na fox, 0.png , 1.png \n",
    "an index": ",prompt,chosen,rejected\n0,a fox,0.png,1.png\n",
    "Unnamed: 0": "Unnamed: 0,prompt,chosen,rejected\n0,a fox,0.png,1.png\n",
    "empty columns": "prompt,chosen,rejected,,\na fox,0.png,1.png,,\n,,,,\n",
    "empty columns in rows alone": "prompt;chosen;rejected\na fox;0.png;1.png;;;\n;;;;;\n",
    "carriage returns": "prompt,chosen,rejected\ra fox,0.png,1.png\r",
    "blank lines": "\n\nprompt,chosen,rejected\n\na fox,0.png,1.png\n\n\n",
    "file names": "text,chosen_file_name,rejected_file_name\na fox,0.png,1.png\n",
    "good and bad": "caption,good_jpg,bad_jpg\na fox,0.png,1.png\n",
    "win and lose": "text,image_win,image_lose\na fox,0.png,1.png\n",
    "camel case": "prompt,chosenImage,rejectedImage\na fox,0.png,1.png\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", CSV)
@pytest.mark.parametrize("name", ["metadata.csv", "pairs.tsv", "Train.CSV"])
def test_every_dialect_of_csv(kind: str, name: str, tmp_path: Path) -> None:
    prepared = read(name, CSV[kind], tmp_path)
    assert (pairs(prepared), prepared.findings) == ([FOX], ())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.json"])
def test_encodings_that_their_mark_tells(encoding: str, name: str, tmp_path: Path) -> None:
    text = CSV["tabs"] if name.endswith("csv") else json.dumps(ROW if name.endswith("l") else [ROW])
    text = text.replace("a fox", "ein Füchslein")
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    assert pairs(read(name, (mark + text).encode(encoding), tmp_path)) == [("ein Füchslein", 0, 1)]


def test_another_encoding_is_named(tmp_path: Path) -> None:
    finding = only(read("metadata.csv", CSV["semicolons"].replace("fox", "café").encode("cp1252"), tmp_path).findings)
    assert "is not UTF-8" in finding.message
    assert "Windows-1252" in finding.message


TABLE = [ROW, {"prompt": "a hen", "chosen": "2.png", "rejected": "3.png"}]
LINES = "\n".join(map(json.dumps, TABLE))
JSON = {
    "lines": LINES,
    "a list": json.dumps(TABLE),
    "an indented list": json.dumps(TABLE, indent=2),
    "rows under a name": json.dumps({"data": TABLE}),
    "rows under a name, indented": json.dumps({"version": 1, "rows": TABLE}, indent=1),
    "lists by column": json.dumps({name: [row[name] for row in TABLE] for name in ROW}),
    "pandas' columns": json.dumps({name: {str(at): row[name] for at, row in enumerate(TABLE)} for name in ROW}),
    "pandas' split": json.dumps({"columns": [*ROW], "index": [0, 1], "data": [[*row.values()] for row in TABLE]}),
    "pandas' table": json.dumps({"schema": {"fields": []}, "data": TABLE}),
    "CRLF lines": LINES.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "ndjson"])
def test_json_is_told_by_its_content(kind: str, suffix: str, tmp_path: Path) -> None:
    prepared = read(f"metadata.{suffix}", JSON[kind], tmp_path)
    assert (pairs(prepared), prepared.findings) == ([FOX, HEN], ())


def test_one_object_is_one_row(tmp_path: Path) -> None:
    assert pairs(read("metadata.json", json.dumps(ROW, indent=1), tmp_path)) == [FOX]


@pytest.mark.parametrize("column", ["file_name", "image", "Image Path", "filename", "img", "file", "path"])
@pytest.mark.parametrize("text", ["text", "caption", "Prompt", "description"])
def test_one_image_a_row_is_a_chosen_one(column: str, text: str, tmp_path: Path) -> None:
    """Hugging Face's ImageFolder and its like."""
    prepared = read("metadata.jsonl", jsonl({column: "0.png", text: "a fox"}), tmp_path)
    assert (pairs(prepared), codes(prepared)) == ([("a fox", 0, None)], ["rejected_missing"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (("promt", "chosen", "rejected"), "no column prompt ('promt' may be it)"),
        (("prompt", "choosen", "rejected"), "no column chosen ('choosen' may be it)"),
        (("prompts", "chosne"), "no column prompt ('prompts' may be it) and no column chosen ('chosne' may be it)"),
        (("foo", "bar"), "no column prompt and no column chosen"),
        (("caption", "foo"), "no column chosen;"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_a_missing_column_is_told_once_with_those_that_are_there(
    columns: tuple[str, ...], words: str, suffix: str, tmp_path: Path
) -> None:
    rows = [dict.fromkeys(columns, "x")] * 1500
    text = "\n".join([",".join(columns), *(",".join(row.values()) for row in rows)])
    data = text if suffix == "csv" else json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    finding = only(read(f"metadata.{suffix}", data, tmp_path).findings)
    assert (finding.code, finding.row) == ("metadata_columns", None)
    assert words in finding.message
    assert f"its columns are {', '.join(columns)}." in finding.message


def test_a_misspelt_column_is_told_first(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": f"none-{at}.png", "rejectd": "1.png"} for at in range(1500)]
    findings = read("metadata.jsonl", jsonl(*rows), tmp_path).findings
    assert (findings[0].code, findings[-1].code) == ("column_unknown", "findings_omitted")
    assert "column 'rejectd' is not read; did you mean 'rejected'?" in findings[0].message


def test_paths_of_which_none_is_in_the_archive_have_one_cause(tmp_path: Path) -> None:
    rows = [{"prompt": f"{at}", "file_name": f"pictures/{at}.jpg"} for at in range(1500)]
    findings = read("metadata.jsonl", jsonl(*rows), tmp_path).findings
    assert (findings[0].code, findings[0].row) == ("image_missing", None)
    assert "none of the 1,500 images that it names is in the archive" in findings[0].message
    assert "pictures/0.jpg" in findings[0].message


def uri(number: int, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(numbered(number)).decode()}"


def test_images_inside_the_table_are_read(tmp_path: Path) -> None:
    """As web forms and JSON exports have them."""
    structs = {"bytes": None, "path": "4.png"}, {"bytes": uri(5).partition(",")[2], "path": "x.png"}
    rows: list[dict[str, object]] = [
        {"prompt": "uri", "chosen": uri(0), "rejected": uri(1)},
        {"prompt": "mixed", "chosen": "2.png", "rejected": uri(3)},
        {"prompt": "struct", "chosen": structs[0], "rejected": structs[1]},
        {"prompt": "base64", "chosen": uri(6).partition(",")[2], "rejected": "7.png"},
    ]
    prepared = read("metadata.jsonl", jsonl(*rows), tmp_path)
    assert pairs(prepared) == [("uri", 0, 1), ("mixed", 2, 3), ("struct", 4, 5), ("base64", 6, 7)]


def test_images_inside_a_csv_are_read(tmp_path: Path) -> None:
    """The comma of a data URI does not end its cell if the cell is quoted, as every program quotes it."""
    assert pairs(read("metadata.csv", f'prompt,chosen,rejected\np,"{uri(0)}","{uri(1)}"\n', tmp_path)) == [("p", 0, 1)]


@pytest.mark.parametrize(
    ("chosen", "code", "words"),
    [
        ("data:image/png;base64,@@@", "row_invalid", "is not base64; store it as a file"),
        (uri(0), "image_too_large", "store it as a file"),
        ("{'bytes': b'\\x89PNG', 'path': None}", "row_invalid", "write the dataset as parquet (to_parquet)"),
        ("https://example.org/a.png", "image_missing", "has a web address, and intake downloads nothing"),
        ("s3://bucket/a.png", "image_missing", "has a web address"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_one_finding_that_says_what_to_do(
    chosen: str, code: str, words: str, tmp_path: Path
) -> None:
    rows = [{"prompt": f"{at}", "image_chosen": chosen, "image_rejected": "1.png"} for at in range(100)]
    limits = Limits(image_bytes=100) if code == "image_too_large" else None
    finding = read("metadata.jsonl", jsonl(*rows), tmp_path, limits).findings[0]
    assert (finding.code, words in finding.message, "'image_chosen'" in finding.message) == (code, True, True)
    assert "The same in 99 more rows (2-100)." in finding.message
    assert chosen not in finding.message or len(chosen) < 40


def test_a_cell_that_is_too_long_for_csv_says_where_images_belong(tmp_path: Path) -> None:
    cell = "data:image/png;base64," + "A" * 200_000
    finding = only(read("metadata.csv", f"prompt,chosen,rejected\np,{cell},{cell}\n", tmp_path).findings)
    assert "put images in files or in parquet" in finding.message
    assert len(finding.message) < 300


@pytest.mark.parametrize("name", ["metadata.xlsx", "pairs.ods", "x/Pairs.XLS"])
def test_a_spreadsheet_is_named(name: str, tmp_path: Path) -> None:
    finding = only(read(name, b"PK\x03\x04", tmp_path).findings)
    assert "spreadsheet" in finding.message
    assert "save it as CSV in UTF-8" in finding.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (jsonl(ROW), "is a text file, and a table alone holds no images"),
        (b"\xef\xbb\xbfprompt,chosen\n", "is a text file"),
        ("prompt\n".encode("utf-16"), "is not a zip"),
        (numbered(0), "is one image"),
        (b"\0\1\2", "is not a zip"),
        (b"", "is empty"),
    ],
)
def test_an_upload_that_is_no_archive_is_called_what_it_is(data: bytes, words: str, tmp_path: Path) -> None:
    finding = only(prepare(data, tmp_path).findings)
    assert (finding.code, words in finding.message) == ("archive_unreadable", True)
