"""Archives without a table, as people and their tools pack them: prompts, images and sides are read back one by one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from intake import Policy, PreparedUpload, Report
from tests.intake.build import codes, encoded, jsonl, only, pixel, png, prepare, tar_of, zip_of

pytestmark = pytest.mark.unit


def ident(number: int, format_: str = "PNG") -> bytes:
    """A picture of one colour, which ``read_back`` turns into the number again."""
    return encoded(Image.new("RGB", (96, 96), colour(number)), format_)


def colour(number: int) -> tuple[int, int, int]:
    return (number * 37 + 20) % 256, (number * 91 + 60) % 256, (number * 151 + 100) % 256


def number_of(found: tuple[int, ...]) -> int:
    return min(range(60), key=lambda n: sum((a - b) ** 2 for a, b in zip(colour(n), found, strict=False)))


Pair = tuple[str, int, int | None]


def read_back(prepared: PreparedUpload) -> list[Pair]:
    def number(sha256: str | None) -> int | None:
        return None if sha256 is None else number_of(pixel(prepared.images[sha256]))

    return [(pair.prompt, number(pair.chosen) or 0, number(pair.rejected)) for pair in prepared.pairs]


def content(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return ident(value) if isinstance(value, int) else str(value).encode()


Files = Mapping[str, object]  # a number is its picture, a text its bytes


def read(folder: Path, files: Files, prompt: str | None = None, *, lenient: bool = False) -> PreparedUpload:
    contents = [(name, content(value)) for name, value in files.items()]
    policy = Policy(prompt=prompt, invalid_rows="drop" if lenient else "refuse")
    return prepare(zip_of(contents), folder, policy=policy)


def errors(prepared: PreparedUpload) -> list[str]:
    return [finding.code for finding in prepared.findings if finding.severity == "error"]


def warned(prepared: PreparedUpload) -> list[str]:
    ordinary = ("rejected_missing", "pair_near_identical")
    return [one.code for one in prepared.findings if one.severity == "warning" and one.code not in ordinary]


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("1.txt", "a fox"),
        ("1.TXT", "a fox"),
        ("1.caption", "a fox"),
        ("1.cap", "a fox"),
        ("1.prompt", "a fox"),
        ("1.tags", "a fox"),
        ("1.png.txt", "a fox"),
        ("1.png.caption", "a fox"),
        ("1.caption.txt", "a fox"),
        ("1.blip.txt", "a fox"),
        ("1.wd14", "a fox"),
        ("1_caption.txt", "a fox"),
        ("1.json", '{"caption": "a fox", "url": "https://x"}'),
        ("1.png.json", '{"tags": ["a fox"]}'),
        ("1.txt", "\ufeffa   fox\r\n"),
    ],
)
@pytest.mark.parametrize("folder", ["", "10_zibu creature/", "img/10_zibu creature/"])
@pytest.mark.parametrize("prompt", [None, "a photo"])
def test_a_caption_beside_a_picture_is_its_prompt_whatever_else_could_be(
    caption: str, text: str, folder: str, prompt: str | None, tmp_path: Path
) -> None:
    prepared = read(tmp_path, {f"{folder}1.png": 1, f"{folder}{caption}": text}, prompt)
    assert (errors(prepared), read_back(prepared)) == ([], [("a fox", 1, None)])
    assert prepared.report.left_out == {}


def test_json_beside_many_pictures_is_no_table(tmp_path: Path) -> None:
    about = {f"{n}.png.json": json.dumps({"prompt": f"p{n}", "chosen": "x", "file_name": f"{n}.png"}) for n in range(3)}
    prepared = read(tmp_path, {**about, **{f"{n}.png": n for n in range(3)}})
    assert read_back(prepared) == [("p0", 0, None), ("p1", 1, None), ("p2", 2, None)]
    pairs = {f"{n}.{side}.png": 2 * n + at for n in range(2) for at, side in enumerate(("chosen", "rejected"))}
    about = {f"{n}.json": json.dumps({"prompt": f"p{n}", "chosen": "x", "rejected": "y"}) for n in range(2)}
    assert read_back(read(tmp_path, {**pairs, **about})) == [("p0", 0, 1), ("p1", 2, 3)]


def test_captions_in_utf_16_are_read(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, "1.txt": "ein Fuchs \u2013 rot".encode("utf-16")})
    assert read_back(prepared) == [("ein Fuchs \u2013 rot", 1, None)]


@pytest.mark.parametrize(
    "files",
    [
        {"images/1.png": 1, "images/2.png": 2, "captions/1.txt": "one", "captions/2.txt": "two"},
        {
            "train/images/1.png": 1,
            "train/images/2.png": 2,
            "train/captions/1.txt": "one",
            "train/captions/2.txt": "two",
        },
        {"1.png": 1, "2.png": 2, "meta_cap.json": '{"1": {"caption": "one"}, "2.png": {"tags": "two"}}'},
        {"img/1.png": 1, "img/2.png": 2, "captions.json": '{"1.png": "one", "img/2.png": "two"}'},
        {"img/1.png": 1, "img/2.png": 2, "img/x.json": '{"C:\\\\data\\\\1.png": "one", "/home/me/img/2.png": "two"}'},
        {"a/1.png": 1, "b/2.png": 2, "a/caption.txt": "one", "b/prompt.txt": "two\n"},
    ],
)
def test_captions_elsewhere_are_read(files: Files, tmp_path: Path) -> None:
    prepared = read(tmp_path, files, "a photo")
    assert (errors(prepared), read_back(prepared)) == ([], [("one", 1, None), ("two", 2, None)])


def test_where_captions_disagree_a_finding_says_which_was_taken(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, "1.txt": "a fox", "1.caption": "a hen", "2.png": 2, "2.txt": "an owl"})
    assert read_back(prepared) == [("a fox", 1, None), ("an owl", 2, None)]
    finding = next(one for one in prepared.findings if one.code == "caption_conflict")
    assert "1 caption of which two sources disagree" in finding.message
    assert "1.txt was taken, and 1.caption" in finding.message


@pytest.mark.parametrize("table", ["metadata.jsonl", "train.csv"])
@pytest.mark.parametrize("caption", ["a.txt", "a.png.caption", "captions/a.txt", "b.txt", "meta_cap.json"])
def test_a_caption_that_is_not_the_tables_prompt_is_told(table: str, caption: str, tmp_path: Path) -> None:
    row = {"prompt": "a fox", "chosen": "a.png", "rejected": "b.png"}
    rows = jsonl(row) if table.endswith("l") else b"prompt,chosen,rejected\na fox,a.png,b.png\n"
    text = json.dumps({"a.png": "a hen"}) if caption.endswith("json") else "a hen"
    prepared = read(tmp_path, {"a.png": 1, "b.png": 2, caption: text, table: rows})
    assert read_back(prepared) == [("a fox", 1, 2)]
    assert codes(prepared) == ["caption_conflict"]
    assert f"{table} was taken, and {caption} says another" in only(prepared.findings).message


def test_a_caption_that_is_the_tables_prompt_is_no_finding(tmp_path: Path) -> None:
    row = {"prompt": "a fox", "chosen": "a.png", "rejected": "b.png"}
    prepared = read(tmp_path, {"a.png": 1, "b.png": 2, "a.txt": "A  fox\n", "metadata.jsonl": jsonl(row)})
    assert (read_back(prepared), codes(prepared)) == ([("a fox", 1, 2)], [])


def test_a_sample_with_two_prompts_says_which_was_taken(tmp_path: Path) -> None:
    files = {"1.chosen.png": 1, "1.rejected.png": 2, "1.txt": "a hen", "1.json": json.dumps({"prompt": "a fox"})}
    prepared = read(tmp_path, files)
    assert (read_back(prepared), codes(prepared)) == ([("a fox", 1, 2)], ["caption_conflict"])


@pytest.mark.parametrize("worse", ["bad", "worse", "rej", "unwanted", "disliked", "failed", "Discarded"])
def test_a_picture_that_is_called_worse_than_the_one_beside_it_is_its_pair(worse: str, tmp_path: Path) -> None:
    files = {"1.png": 1, "1.txt": "a fox", f"1_{worse}.png": 2, f"1_{worse}.txt": "a fox"}
    assert read_back(read(tmp_path, files)) == [("a fox", 1, 2)]


@pytest.mark.parametrize("size", ["shirt_l.png", "shirt_negative.png", "bad_shirt.png"])
def test_a_picture_beside_another_is_not_always_worse(size: str, tmp_path: Path) -> None:
    assert len(read_back(read(tmp_path, {"shirt.png": 1, size: 2}, prompt="a shirt"))) == 2


def test_captions_that_are_the_same_prompt_do_not_disagree(tmp_path: Path) -> None:
    assert warned(read(tmp_path, {"1.png": 1, "1.txt": "A fox", "1.caption": "a  FOX\n"})) == []


def test_an_empty_caption_gives_way_to_another_and_to_nothing_else(tmp_path: Path) -> None:
    assert read_back(read(tmp_path, {"1.png": 1, "1.txt": " ", "1.caption": "a fox"})) == [("a fox", 1, None)]
    prepared = read(tmp_path, {"10_zibu dog/1.png": 1, "10_zibu dog/1.txt": "", "10_zibu dog/2.png": 2}, "a photo")
    assert (errors(prepared), read_back(prepared)) == (["prompt_empty"], [("zibu dog", 2, None)])


def test_a_file_of_many_prompts_is_no_caption_and_is_told(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"10_zibu dog/1.png": 1, "10_zibu dog/2.png": 2, "prompts.txt": "one\ntwo\n"})
    assert read_back(prepared) == [("zibu dog", 1, None), ("zibu dog", 2, None)]
    assert warned(prepared) == ["caption_conflict"]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("names.csv", "picture,words\n1.png,a fox\n"),
        ("names.jsonl", '{"picture": "img/1.png", "words": "a fox"}\n'),
        ("names.json", '[{"picture": "1.png", "words": "a fox"}]'),
    ],
)
def test_a_table_of_unknown_columns_that_names_the_pictures_is_told(name: str, table: str, tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, name: table}, "a photo")
    assert (read_back(prepared), warned(prepared)) == ([("a photo", 1, None)], ["caption_conflict"])
    assert f"{name} names images" in next(one.message for one in prepared.findings if one.code == "caption_conflict")


@pytest.mark.parametrize("name", ["1.negative.txt", "1_negative.txt", "1-neg.txt", "1.negative_prompt.txt"])
def test_a_negative_prompt_is_no_caption(name: str, tmp_path: Path) -> None:
    assert read_back(read(tmp_path, {"1.png": 1, name: "ugly"}, "a photo")) == [("a photo", 1, None)]
    assert warned(read(tmp_path, {"1.png": 1, name: "ugly", "1.txt": "a fox"})) == []


def test_repeats_of_folders_are_weights_where_they_differ(tmp_path: Path) -> None:
    files = {"img/10_zibu/1.png": 1, "img/10_zibu/1.caption": "a zibu", "img/5_style/2.png": 2}
    assert [(pair.prompt, pair.weight) for pair in read(tmp_path, files).pairs] == [("a zibu", 2.0), ("style", 1.0)]
    assert [pair.weight for pair in read(tmp_path, files | {"3.png": 3}, "x").pairs] == [1.0, 10.0, 5.0]
    same = {"10_zibu/1.png": 1, "10_style/2.png": 2}
    assert [pair.weight for pair in read(tmp_path, same).pairs] == [None, None]
    numbered = {"0_zibu/1.png": 1, "1_style/2.png": 2}
    assert [pair.weight for pair in read(tmp_path, numbered).pairs] == [None, None]


@pytest.mark.parametrize("sidecar", ["1.xmp", "1.aae", "1.npz", "1.safetensors", "1.yaml", "1.log"])
def test_what_is_no_caption_is_not_read_as_one(sidecar: str, tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, sidecar: "x\0y"}, "a photo")
    assert (read_back(prepared), prepared.report.left_out) == ([("a photo", 1, None)], {"no_image": 1})


def test_boxes_of_a_detector_are_no_caption(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, "1.txt": "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.3 0.4\n"}, "a photo")
    assert read_back(prepared) == [("a photo", 1, None)]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("1.jfif", "JPEG"),
        ("1.jpe", "JPEG"),
        ("1.JPG_large", "JPEG"),
        ("1", "PNG"),
        ("1.dat", "WEBP"),
        ("1.png_orig", "PNG"),
    ],
)
def test_a_picture_is_told_by_its_bytes(name: str, format_: str, tmp_path: Path) -> None:
    files = {name: ident(1, format_), "1.txt": "a fox", "2.png": ident(2), "2.txt": b"a hen"}
    assert read_back(read(tmp_path, files)) == [("a fox", 1, None), ("a hen", 2, None)]
    pairs = {f"chosen/{name}": ident(1, format_), "rejected/1.png": ident(2), "chosen/1.txt": "a fox"}
    assert read_back(read(tmp_path, pairs)) == [("a fox", 1, 2)]
    tar = tar_of([(name, ident(1, format_)), ("1.txt", b"a fox")])
    assert read_back(prepare(tar, tmp_path)) == [("a fox", 1, None)]


@pytest.mark.parametrize("start", [b"GIF89a", b"\0\0\0\x20ftypheic", b"II*\0", b"\0\0\0\x0cJXL "])
def test_a_picture_that_cannot_be_used_is_told_by_its_bytes_too(start: bytes, tmp_path: Path) -> None:
    files = {"1.png": ident(1), "1.txt": b"a fox", "2.photo": start + bytes(80), "2.txt": b"a hen"}
    assert errors(read(tmp_path, files)) == ["image_format"]


STRAYS: dict[str, bytes | str] = {
    "config.json": '{"resolution": 1024}', "dataset_info.json": "{}", "state.json": '{"_data_files": []}',
    "captions.csv.bak": "x", "notes.csv": "a,b\n1,2\n", "log.jsonl": '{"step": 1}', "README.md": "# fox",
    "1.npz": b"PK\0\0", "1.xmp": "<x:xmpmeta/>", "IMG.aae": "<plist/>", "metadata.json": '{"name": "foxes"}',
}  # fmt: skip
GENERATED: dict[str, bytes | str | int] = {
    ".DS_Store": b"\0", "Thumbs.db": b"\xd0\xcf", "ehthumbs_vista.db": b"\0", "desktop.ini": "[x]", "._1.png": b"\0\5",
    "__MACOSX/._1.png": b"\0", ".ipynb_checkpoints/1-checkpoint.png": 30, "sub/.ipynb_checkpoints/2.png": 31,
    "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg": 32, ".@__thumb/1.png": 33, ".thumbnails/1.jpg": 34, ".picasa.ini": "[1.png]",
    ".cache/huggingface/.gitignore": "*", ".gitattributes": "x", ".git/config": "x", "$RECYCLE.BIN/1.png": 35,
    "#recycle/1.png": 36, "1.png~": 37, "~$notes.docx": b"x", "2.png.tmp": 38, "3.crdownload": b"x",
    ".Trash-1000/files/1.png": 39, ".dtrash/1.png": 40, "__pycache__/x.pyc": b"\0", "lost+found/1.png": 41,
    ".Spotlight-V100/1.png": 42, "icon\r": b"",
}  # fmt: skip


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_file_does_not_decide(stray: str, tmp_path: Path) -> None:
    captioned = read(tmp_path, {"1.png": 1, "1.txt": "a fox", stray: STRAYS[stray]})
    assert (captioned.format, errors(captioned), read_back(captioned)) == (
        "archive/image-folder",
        [],
        [("a fox", 1, None)],
    )
    pairs = read(tmp_path, {"chosen/1.png": 1, "rejected/1.png": 2, "chosen/1.txt": "a fox", stray: STRAYS[stray]})
    assert (pairs.format, errors(pairs), read_back(pairs)) == ("archive/two-folders", [], [("a fox", 1, 2)])
    assert sum(pairs.report.left_out.values()) == 1


def test_all_strays_at_once_are_counted(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, "1.txt": "a fox"} | STRAYS | GENERATED)
    assert (errors(prepared), read_back(prepared)) == ([], [("a fox", 1, None)])
    generated = len(GENERATED) + 1  # the .bak file
    assert prepared.report.left_out == {"no_image": len(STRAYS) - 1, "generated": generated}
    assert f"hidden or generated files ({generated})" in prepared.report.in_words()


@pytest.mark.parametrize("name", GENERATED)
def test_what_programs_leave_is_no_picture(name: str, tmp_path: Path) -> None:
    prepared = read(tmp_path, {"1.png": 1, "1.txt": "a fox", name: GENERATED[name]}, "a photo")
    assert (codes(prepared), read_back(prepared)) == (["rejected_missing"], [("a fox", 1, None)])
    assert prepared.report.left_out == {"generated": 1}


def test_a_row_finds_a_hidden_image_by_its_path(tmp_path: Path) -> None:
    table = jsonl({"prompt": "a fox", "chosen": ".shots/1.png", "rejected": ".shots/2.png"})
    prepared = read(tmp_path, {"metadata.jsonl": table, ".shots/1.png": 1, ".shots/2.png": 2, ".shots/3.png": 3})
    assert (read_back(prepared), prepared.report.left_out) == ([("a fox", 1, 2)], {"generated": 1})


def test_images_that_no_row_names_are_counted(tmp_path: Path) -> None:
    rows = jsonl(
        {"prompt": "a fox", "chosen": "1.png", "rejected": "2.png"}, {"prompt": "x", "chosen": "3.png", "seed": -9}
    )
    files = {"metadata.jsonl": rows, "1.png": 1, "2.png": 2, "3.png": 3, "4.png": 4, "5": ident(5), "notes.md": "x"}
    prepared = read(tmp_path, files, lenient=True)
    assert read_back(prepared) == [("a fox", 1, 2)]
    assert prepared.report.left_out == {"dropped": 1, "unnamed": 2, "no_image": 1}
    assert Report.from_json(json.loads(json.dumps(prepared.report.as_json()))) == prepared.report


SIDES = [
    ("chosen", "rejected"), ("Chosen", "Rejected"), ("w", "l"), ("win", "lose"), ("winner", "loser"),
    ("winners", "losers"), ("good", "bad"), ("better", "worse"), ("best", "worst"), ("positive", "negative"),
    ("pos", "neg"), ("preferred", "dispreferred"), ("preferred", "not_preferred"), ("preferred", "unpreferred"),
    ("chosen", "not chosen"), ("liked", "disliked"), ("accepted", "rejects"), ("selected", "unselected"),
    ("prefered", "nonprefered"), ("picked", "not_picked"), ("thumbs_up", "thumbs_down"), ("accept", "reject"),
    ("approved", "disapproved"), ("wanted", "unwanted"), ("chosen", "rej"), ("preferred", "rejection"),
]  # fmt: skip
# Words that say so as names of folders alone, and only together.
FOLDERS = [
    ("yes", "no"), ("pass", "failed"), ("ok", "ng"), ("keep", "trash"), ("selected", "discarded"), ("loved", "hated"),
    ("favourites", "deleted"), ("hq", "lq"), ("success", "failure"), ("pretty", "ugly"),
]  # fmt: skip


@pytest.mark.parametrize(("chosen", "rejected"), SIDES)
@pytest.mark.parametrize(
    "pattern",
    ["{}/fox.png", "{}_images/fox.png", "01_{}/fox.png", "set/{}/fox.png", "set/{}/a/fox.png", "{}/fox_{}.png"],
)
@pytest.mark.parametrize("prompt", [None, "a photo"])
def test_folders_that_are_called_the_sides(
    chosen: str, rejected: str, pattern: str, prompt: str | None, tmp_path: Path
) -> None:
    one, two = (pattern.replace("{}", side) for side in (chosen, rejected))
    if " " in rejected or "_" in rejected or (chosen, rejected) not in SIDES[:1]:
        one, two = one.replace(f"fox_{chosen}", "fox"), two.replace(f"fox_{rejected}", "fox")
    prepared = read(tmp_path, {one: 1, two: 2} | ({} if prompt else {one.replace(".png", ".txt"): "a fox"}), prompt)
    assert (errors(prepared), read_back(prepared)) == ([], [(prompt or "a fox", 1, 2)])


@pytest.mark.parametrize(("chosen", "rejected"), FOLDERS)
def test_folders_that_say_the_sides_together(chosen: str, rejected: str, tmp_path: Path) -> None:
    files = {f"{side}/fox.{suffix}": value for side, number in ((chosen, 1), (rejected, 2))
             for suffix, value in (("png", number), ("txt", "a fox"))}  # fmt: skip
    assert read_back(read(tmp_path, files)) == [("a fox", 1, 2)]


@pytest.mark.parametrize(("chosen", "rejected"), SIDES)
@pytest.mark.parametrize("pattern", ["fox_{}.png", "fox-{}.png", "fox {}.png", "{}_fox.png", "d/fox.{}.png"])
@pytest.mark.parametrize("prompt", [None, "a photo"])
def test_files_that_are_called_the_sides(
    chosen: str, rejected: str, pattern: str, prompt: str | None, tmp_path: Path
) -> None:
    one, two = pattern.format(chosen), pattern.format(rejected)
    shared = pattern.rpartition("/")[0] + "/fox.txt" if "/" in pattern else "fox.txt"
    prepared = read(tmp_path, {one: 1, two: 2} | ({} if prompt else {shared: "a fox"}), prompt)
    assert (errors(prepared), read_back(prepared)) == ([], [(prompt or "a fox", 1, 2)])


@pytest.mark.parametrize(
    "names",
    [
        ("1/chosen.png", "1/rejected.png", "1/prompt.txt", "2/chosen.png", "2/rejected.jpg", "2/prompt.txt"),
        ("x/1_chosen.png", "x/1_rejected.png", "x/1.txt", "x/2_chosen.png", "x/2_rejected.png", "x/2.txt"),
        ("1.png", "1_rejected.png", "1.txt", "2.png", "2_rejected.png", "2.txt"),
        ("chosen/1.png", "rejected/1.png", "prompts/1.txt", "chosen/2.png", "rejected/2.png", "prompts/2.txt"),
        ("chosen/1.png", "rejected/1.png", "1.txt", "chosen/2.png", "rejected/2.png", "2.txt"),
        ("a/w/1.png", "a/l/1.png", "a/w/1.txt", "b/w/1.png", "b/l/1.png", "b/l/1.caption"),
        ("chosen A/1.png", "rejected A/1.png", "chosen A/1.txt", "chosen/1.png", "rejected/1.png", "chosen/1.txt"),
        ("1-w-7.chosen.png", "1-w-7.rejected.png", "1-w-7.txt", "2-w-7.chosen.png", "2-w-7.rejected.png", "2-w-7.txt"),
        ("chosen_1.png", "rejected_1.png", "prompt_1.txt", "chosen_2.png", "rejected_2.png", "caption_2.txt"),
        ("1w.png", "1l.png", "1.txt", "2w.png", "2l.png", "2w.txt"),
        ("01.chosen.png", "01.rejected.png", "01.json", "02.chosen.png", "02.rejected.png", "02.json"),
        ("1Chosen.png", "1Rejected.png", "1Chosen.txt", "2Chosen.png", "2Rejected.png", "2Rejected.txt"),
        ("chosen/1.png", "rejected/1.PNG", "rejected/1.json", "chosen/X.png", "rejected/x.png", "chosen/X.png.txt"),
    ],
)  # fmt: skip
def test_other_ways_to_name_pairs(names: tuple[str, ...], tmp_path: Path) -> None:
    contents = (1, 2, '{"prompt": "one"}' if names[2].endswith("json") else "one")
    more = (3, 4, '{"prompt": "two"}' if names[5].endswith("json") else "two")
    files = dict(zip(names, (*contents, *more), strict=True))
    prepared = read(tmp_path, files)
    assert (errors(prepared), sorted(read_back(prepared))) == ([], [("one", 1, 2), ("two", 3, 4)])
    assert (warned(prepared), prepared.report.left_out) == ([], {})


@pytest.mark.parametrize(
    "files",
    [
        {"fox_rejected.png": 1, "fox_rejected.txt": "x", "hen.png": 2, "hen.txt": "y"},
        {"rejects/fox.png": 1, "hen.png": 2, "hen.txt": "y"},
        {"images/1.png": 1, "images/1.txt": "x", "bad/2.png": 2, "bad/2.txt": "y"},
        {"images/1.png": 1, "images/1.txt": "x", "not_chosen/2.png": 2},
        {"images/1.png": 1, "images/1.txt": "x", "01_losers/2.png": 2},
        {"chosen/1.png": 1, "chosen/1.txt": "x"},
        {"a/1.png": 1, "b/1.png": 2, "a/1.txt": "x", "b/1.txt": "x"},
        {"left/1.png": 1, "right/1.png": 2, "left/1.txt": "x"},
        {"image_0/1.png": 1, "image_1/1.png": 2, "image_0/1.txt": "x"},
        {"0.jpg_0.jpg": 1, "0.jpg_1.jpg": 2, "0.txt": "x"},
        {"0.jpg_0": 1, "0.jpg_1": 2, "0.original_prompt.txt": "x"},
        {"0.first.png": 1, "0.second.png": 2, "0.txt": "x"},
        {"0.0.png": 1, "0.1.png": 2, "0.cls": "1", "0.txt": "x"},
        {"1/a.png": 1, "1/b.png": 2, "1/label.txt": "a", "1/prompt.txt": "x"},
        {"unselected/1.png": 1, "unselected/1.txt": "x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("prompt", [None, "a photo"])
def test_what_is_called_rejected_or_one_of_two_is_refused_without_its_pair(
    files: Files, prompt: str | None, tmp_path: Path
) -> None:
    prepared = read(tmp_path, files, prompt, lenient=True)
    assert not prepared.usable
    assert errors(prepared)[0] in ("metadata_missing", "metadata_columns")


@pytest.mark.parametrize(
    "files",
    [
        {"good_dog.png": 1, "good_dog.txt": "one", "l.png": 2, "l.txt": "two"},
        {"10_good dog/1.png": 1, "10_good dog/1.txt": "one", "10_good dog/2.png": 2, "10_good dog/2.txt": "two"},
        {"selected/1.png": 1, "selected/1.txt": "one", "selected/2.png": 2, "selected/2.txt": "two"},
        {"thumbs_up.png": 1, "thumbs_up.txt": "one", "z.png": 2, "z.txt": "two"},
        {"best/1.png": 1, "best/1.txt": "one", "best/2.png": 2, "best/2.txt": "two"},
        {"the_chosen_one.png": 1, "the_chosen_one.txt": "one", "zoo.png": 2, "zoo.txt": "two"},
        {"masks/1.png": 1, "masks/1.txt": "one", "masks/2.png": 2, "masks/2.txt": "two"},
        {"fox_mask.png": 1, "fox_mask.txt": "one", "hen_mask.png": 2, "hen_mask.txt": "two"},
        {"fox_a.png": 1, "fox_a.txt": "one", "fox_b.png": 2, "fox_b.txt": "two"},
        {"photo 1.2.png": 1, "photo 1.2.txt": "one", "photo 1.3.png": 2, "photo 1.3.txt": "two"},
        {"unchosen field.png": 1, "unchosen field.txt": "one", "x.png": 2, "x.txt": "two"},
    ],
)  # fmt: skip
def test_words_that_say_no_side_are_just_names(files: Files, tmp_path: Path) -> None:
    if "unchosen field.png" in files:
        files = {name.replace("unchosen field", "the rejectionist"): value for name, value in files.items()}
    prepared = read(tmp_path, files)
    assert (errors(prepared), read_back(prepared)) == ([], [("one", 1, None), ("two", 2, None)])


def test_a_picture_beside_pairs_that_is_in_none_is_told_and_counted(tmp_path: Path) -> None:
    files = {"chosen/1.png": 1, "rejected/1.png": 2, "chosen/1.txt": "a fox", "more/3.png": 3, "more/3.txt": "x"}
    prepared = read(tmp_path, files)
    assert (read_back(prepared), warned(prepared)) == ([("a fox", 1, 2)], ["image_unused"])
    assert prepared.report.left_out == {"unpaired": 1, "no_image": 1}


def test_a_side_without_its_opposite_is_named_by_row(tmp_path: Path) -> None:
    files = {"1_good.png": 1, "1_bad.png": 2, "2_bad.png": 3, "3_good.png": 4}
    prepared = read(tmp_path, files, "a photo", lenient=True)
    assert (read_back(prepared), prepared.report.dropped) == ([("a photo", 1, 2)], {"image_missing": 2})
    assert prepared.report.left_out == {"dropped": 2}
    assert not read(tmp_path, files, "a photo").usable


MASKS = [
    {"1-masklabel.png": 50}, {"1_mask.png": 50}, {"1.mask.png": 50}, {"1-mask.png": 50}, {"mask_1.png": 50},
    {"masks/1.png": 50}, {"1-condlabel.png": 50}, {"conditioning_images/1.png": 50}, {"control/1.png": 50},
    {"1_depth.png": 50}, {"1_canny.png": 50}, {"mask/1_mask.png": 50}, {"1Mask.png": 50},
    {"reg/1.png": 50}, {"reg/1_person/x.png": 50}, {"regularization_images/x.png": 50}, {"class_images/x.png": 50},
    {"1_reg.png": 50}, {"x_regularisation.png": 50}, {"reg/1_person/x.png": 50, "reg/1_person/x.txt": "a person"},
    {"1-masklabel.png": 50, "1-masklabel.txt": "white"},
]  # fmt: skip


@pytest.mark.parametrize("more", MASKS, ids=lambda more: next(iter(more)))
@pytest.mark.parametrize("prompt", [None, "a photo"])
def test_masks_and_regularisation_pictures_are_no_pictures_to_learn(
    more: dict[str, object], prompt: str | None, tmp_path: Path
) -> None:
    prepared = read(tmp_path, {"1.png": 1, "1.txt": "a cat"} | more, prompt)
    assert (errors(prepared), read_back(prepared)) == ([], [("a cat", 1, None)])
    assert warned(prepared) == ["image_unused"]
    [reason] = set(prepared.report.left_out) - {"no_image"}
    assert reason == ("regularisation" if "reg" in str(more) or "class" in str(more) else "mask")
    pairs = read(
        tmp_path,
        {"chosen/1.png": 1, "rejected/1.png": 2, "chosen/1.txt": "a cat"}
        | {f"chosen/{name}": value for name, value in more.items()},
        prompt,
    )
    assert (errors(pairs), read_back(pairs)) == ([], [("a cat", 1, 2)])


def test_class_pictures_of_dreambooth_are_none_to_learn_beside_instances(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"instance_images/1.png": 1, "class/1.png": 2}, "a photo of zibu")
    assert read_back(prepared) == [("a photo of zibu", 1, None)]
    assert prepared.report.left_out == {"regularisation": 1}


NOT_CHOSEN = [
    *("rejected/2.png", "fox_rejected.png", "2-masklabel.png", "l/1.png", "bad/1.png"),
    *("masks/1.png", "1_mask.png", "conditioning_images/1.png", "1_depth.png", "reg/2.png", "class_images/2.png"),
]


@pytest.mark.parametrize("name", NOT_CHOSEN)
def test_no_table_makes_a_rejected_image_or_a_mask_a_chosen_one(name: str, tmp_path: Path) -> None:
    rows = jsonl({"prompt": "one", "chosen": "1.png"}, {"prompt": "two", "chosen": name})
    prepared = read(tmp_path, {"metadata.jsonl": rows, "1.png": 1, name: 2}, lenient=True)
    assert (read_back(prepared), prepared.report.dropped) == ([("one", 1, None)], {"row_invalid": 1})


@pytest.mark.parametrize("pattern", ["{}/1.png", "1_{}.png", "data/{}_images/1.png"])
@pytest.mark.parametrize("words", [("chosen", "rejected"), ("preferred", "dispreferred"), ("winner", "loser")])
def test_a_row_that_says_the_opposite_of_its_images_names_is_refused(
    pattern: str, words: tuple[str, str], tmp_path: Path
) -> None:
    better, worse = (pattern.format(word) for word in words)
    rows = jsonl(
        {"prompt": "one", "chosen": better, "rejected": worse}, {"prompt": "two", "chosen": worse, "rejected": better}
    )
    prepared = read(tmp_path, {"metadata.jsonl": rows, better: 1, worse: 2}, lenient=True)
    assert (read_back(prepared), prepared.report.dropped) == ([("one", 1, 2)], {"row_invalid": 1})


def test_masks_that_belong_to_no_image_are_images_of_a_table_like_others(tmp_path: Path) -> None:
    rows = jsonl({"file_name": "masks/venice.png", "text": "a carnival mask"})
    assert read_back(read(tmp_path, {"metadata.jsonl": rows, "masks/venice.png": 3})) == [("a carnival mask", 3, None)]


def shard(*samples: Mapping[str, bytes]) -> bytes:
    """As webdataset's TarWriter names the members."""
    return tar_of([(f"{key}.{name}", data) for key, sample in enumerate(samples) for name, data in sample.items()])


def pick(first: int, second: int, label: str, prompt: str, image: str = "jpg_{}.jpg") -> dict[str, bytes]:
    other = str(1 - float(label))
    images = {image.format(0): ident(first), image.format(1): ident(second)}
    return images | {
        "label_0.txt": label.encode(),
        "label_1.txt": other.encode(),
        "original_prompt.txt": prompt.encode(),
    }


@pytest.mark.parametrize("image", ["jpg_{}.jpg", "jpg_{}", "jpg_{}.png"])
def test_shards_of_pick_a_pic(image: str, tmp_path: Path) -> None:
    tie = pick(5, 6, "0.5", "a tie", image)
    prepared = prepare(shard(pick(1, 2, "1.0", "one", image), pick(3, 4, "0.0", "two", image), tie), tmp_path)
    assert (prepared.format, errors(prepared)) == ("archive/pick-a-pic", [])
    assert read_back(prepared) == [("one", 1, 2), ("two", 4, 3)]
    assert prepared.report.tied == 1


def test_a_sample_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    lacking = pick(3, 4, "1.0", "two")
    del lacking["label_0.txt"]
    prepared = prepare(shard(pick(1, 2, "1.0", "one"), lacking), tmp_path)
    finding = only(one for one in prepared.findings if one.severity == "error")
    assert "sample 1 has no label_0" in finding.message
    assert read_back(prepared) == [("one", 1, 2)]


def test_shards_with_columns_in_json(tmp_path: Path) -> None:
    about = {"prompt": "one", "prefer_0": False, "prefer_1": True}
    sample = {"image_0.png": ident(1), "image_1.png": ident(2), "json": json.dumps(about).encode()}
    prepared = prepare(shard(sample), tmp_path)
    assert (prepared.format, read_back(prepared)) == ("archive/invoke-training", [("one", 2, 1)])


def test_shards_with_chosen_and_rejected(tmp_path: Path) -> None:
    samples = [
        {"chosen.png": ident(2 * n), "rejected.png": ident(2 * n + 1), "json": f'{{"prompt": "p{n}"}}'.encode()}
        for n in range(3)
    ]
    assert read_back(prepare(shard(*samples), tmp_path)) == [("p0", 0, 1), ("p1", 2, 3), ("p2", 4, 5)]


def test_shards_of_img2dataset(tmp_path: Path) -> None:
    samples = [
        {"jpg": ident(n, "JPEG"), "txt": f"caption {n}".encode(), "json": f'{{"caption": "caption {n}"}}'.encode()}
        for n in range(2)
    ]
    prepared = prepare(shard(*samples), tmp_path)
    assert (read_back(prepared), warned(prepared)) == ([("caption 0", 0, None), ("caption 1", 1, None)], [])


def splits(prepared: PreparedUpload) -> list[tuple[str, str | None]]:
    return [(pair.prompt, pair.split) for pair in prepared.pairs]


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test", "Test", "dev", "eval", "holdout"])
@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_folders_that_are_called_splits_are_splits(held_out: str, train: str, tmp_path: Path) -> None:
    expected = [("one", "train"), ("two", "validation")]
    subject = {f"{train}/1.png": 1, f"{train}/1.txt": "one", f"{held_out}/2.png": 2, f"{held_out}/2.txt": "two"}
    assert sorted(splits(read(tmp_path, subject))) == expected
    inner = {f"set/{train}/10_fox/1.png": 1, f"set/{held_out}/10_hen/2.png": 2}
    assert sorted(splits(read(tmp_path, inner))) == [("fox", "train"), ("hen", "validation")]
    pairs = {
        f"{train}/chosen/1.png": 1, f"{train}/rejected/1.png": 2, f"{train}/chosen/1.txt": "one",
        f"{held_out}/chosen/1.png": 3, f"{held_out}/rejected/1.png": 4, f"{held_out}/chosen/1.txt": "two",
    }  # fmt: skip
    found = read(tmp_path, pairs)
    assert (sorted(splits(found)), sorted(read_back(found))) == (expected, [("one", 1, 2), ("two", 3, 4)])
    turned = {"/".join([*reversed(path.split("/")[:2]), path.split("/")[2]]): value for path, value in pairs.items()}
    assert sorted(splits(read(tmp_path, turned))) == expected


def test_tables_in_folders_of_splits_are_all_read(tmp_path: Path) -> None:
    rows = {"train": ("one", "a.png", "b.png"), "test": ("two", "c.png", "d.png")}
    tables = {
        f"{name}/metadata.jsonl": jsonl(dict(zip(("prompt", "chosen", "rejected"), row, strict=True)))
        for name, row in rows.items()
    }
    images = {"train/a.png": 1, "train/b.png": 2, "test/c.png": 3, "test/d.png": 4}
    prepared = read(tmp_path, {**tables, **images})
    assert (errors(prepared), sorted(read_back(prepared))) == ([], [("one", 1, 2), ("two", 3, 4)])
    assert sorted(splits(prepared)) == [("one", "train"), ("two", "validation")]
    broken = read(
        tmp_path, {**tables, **images} | {"test/metadata.jsonl": jsonl({"prompt": "two", "chosen": "no.png"})}
    )
    finding = only(one for one in broken.findings if one.severity == "error")
    assert finding.message.startswith("test/metadata.jsonl row 1: chosen image no.png")


def test_tables_that_are_called_splits_are_all_read_and_a_row_decides_for_itself(tmp_path: Path) -> None:
    tables = {
        "train.jsonl": jsonl(
            {"prompt": "one", "chosen": "1.png"}, {"prompt": "kept", "chosen": "3.png", "split": "validation"}
        ),
        "val.jsonl": jsonl({"prompt": "two", "chosen": "2.png"}),
    }
    prepared = read(tmp_path, tables | {"1.png": 1, "2.png": 2, "3.png": 3})
    assert splits(prepared) == [("one", "train"), ("kept", "validation"), ("two", "validation")]


def test_rows_of_a_table_belong_to_the_split_that_holds_their_images(tmp_path: Path) -> None:
    rows = jsonl(
        {"prompt": "one", "chosen": "train/1.png", "rejected": "train/2.png"},
        {"prompt": "two", "chosen": "val/3.png", "rejected": "val/4.png"},
        {"prompt": "dev is a model", "chosen": "dev/5.png", "rejected": "schnell/5.png"},
        {"prompt": "said", "chosen": "val/3.png", "rejected": "val/6.png", "split": "train"},
    )
    paths = ["train/1.png", "train/2.png", "val/3.png", "val/4.png", "dev/5.png", "schnell/5.png", "val/6.png"]
    prepared = read(tmp_path, {"metadata.jsonl": rows} | {path: number for number, path in enumerate(paths)})
    assert [split for _, split in splits(prepared)] == ["train", "validation", None, "train"]


def test_an_upload_that_is_all_held_out_is_told(tmp_path: Path) -> None:
    prepared = read(tmp_path, {"test/1.png": 1, "test/1.txt": "one"})
    assert (splits(prepared), warned(prepared)) == ([("one", "validation")], ["pairs_held_out"])


def test_a_picture_that_is_only_begun_is_read_little_of() -> None:
    """Telling what an entry is reads its start alone."""
    from intake.archives.zip_archive import list_zip
    from intake.limits import Limits

    noise = Image.effect_noise((900, 900), 90)
    for compression in (0, 8):
        data = zip_of([("big", encoded(noise))], compression)
        file = io.BytesIO(data)
        [entry] = list_zip(file, len(data), Limits())
        assert entry.head(8) == b"\x89PNG\r\n\x1a\n"
        assert file.tell() < 4_000


def test_png_is_the_picture_of_its_bytes_only_if_they_are_whole(tmp_path: Path) -> None:
    assert errors(read(tmp_path, {"1": png()[:40], "1.txt": "a fox"})) == ["image_truncated"]
