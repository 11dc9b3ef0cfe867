"""Names and entries as other systems pack them: each pair gets the images that its row means."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from intake.pairs import PreparedUpload
from tests.intake.build import CENTRAL, codes, good_files, jsonl, only, pixel, png, prepare, tar_of, zip_of

pytestmark = pytest.mark.unit

RED, BLUE, GREEN = png((255, 0, 0)), png((0, 0, 255)), png((0, 200, 0))
COLOURS: dict[tuple[int, ...], str] = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 200, 0): "green"}


def pairs(prepared: PreparedUpload) -> list[tuple[str, str, str | None]]:
    def colour(sha256: str | None) -> str | None:
        return None if sha256 is None else COLOURS[pixel(prepared.images[sha256])[:3]]

    return [(pair.prompt, str(colour(pair.chosen)), colour(pair.rejected)) for pair in prepared.pairs]


def raw_zip(files: list[tuple[bytes, bytes]], extra: bytes = b"", flags: int = 0) -> bytes:
    """Names as bytes, which ``zipfile`` does not write; ``extra`` is for the first entry."""
    body, directory = b"", b""
    for number, (name, data) in enumerate(files):
        more = extra if number == 0 else b""
        sizes = struct.pack("<III", zlib.crc32(data), len(data), len(data))
        common = struct.pack("<HHHHH", 20, flags, 0, 0, 33) + sizes + struct.pack("<HH", len(name), len(more))
        at = len(body)
        body += b"PK\x03\x04" + common + name + more + data
        directory += CENTRAL + b"\x14\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, at) + name + more
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(files), len(files), len(directory), len(body), 0)
    return body + directory + end


def unicode_path(header_name: bytes, name: str) -> bytes:
    field = b"\x01" + struct.pack("<I", zlib.crc32(header_name)) + name.encode()
    return struct.pack("<HH", 0x7075, len(field)) + field


NAMES = {
    "cp437": ("Füchse/schöner Fuchs.png", "Füchse/größerer Fuchs.png"),
    "cp850": ("raposa/não.png", "raposa/coração.png"),
    "cp1252": ("Füchse/schöner Fuchs.png", "señor.png"),
    "cp866": ("лисы/рыжая лиса.png", "лисы/Сова.png"),
    "cp1251": ("лисы/рыжая лиса.png", "лисы/Сова.png"),
    "cp932": ("きつね/表.png", "きつね/写真.png"),
    "gbk": ("图片里的狐狸/1.png", "图片/1.png"),
    "cp949": ("사진/빨간 여우.png", "사진/고양이.png"),
    "big5": ("圖片/紅色的狐狸.png", "圖片/照片.png"),
    "cp852": ("zdjęcia/łódź.png", "zdjęcia/żółw.png"),
}


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("page", NAMES)
def test_names_in_a_countrys_code_page_are_found_by_what_the_table_says(
    page: str, escaped: bool, tmp_path: Path
) -> None:
    chosen, rejected = NAMES[page]
    table = json.dumps({"prompt": "p", "chosen": chosen, "rejected": rejected}, ensure_ascii=escaped).encode()
    files = [(b"metadata.jsonl", table), (chosen.encode(page), RED), (rejected.encode(page), BLUE)]
    prepared = prepare(raw_zip(files), tmp_path)
    assert pairs(prepared) == [("p", "red", "blue")]
    finding = only(prepared.findings)
    assert (finding.code, finding.severity) == ("archive_path", "warning")
    assert chosen in finding.message


@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize(("page", "folder"), [("cp1251", "лиса"), ("gbk", "狐狸")])
def test_where_names_of_folders_alone_are_in_a_code_page_the_table_says_which(
    page: str, folder: str, slash: str, tmp_path: Path
) -> None:
    paths = [f"{folder}{slash}{name}.png" for name in "ab"]
    table = json.dumps({"prompt": "p", "chosen": paths[0], "rejected": paths[1]}).encode()
    files = [(b"metadata.jsonl", table), (paths[0].encode(page), RED), (paths[1].encode(page), BLUE)]
    assert pairs(prepare(raw_zip(files), tmp_path)) == [("p", "red", "blue")]


@pytest.mark.parametrize("page", ["cp437", "cp1252", "cp866", "cp1251", "cp932", "gbk", "cp949", "big5", "cp852"])
def test_a_prompt_from_a_folders_name_is_no_gibberish_and_says_how_it_was_read(page: str, tmp_path: Path) -> None:
    folder = NAMES[page][0].partition("/")[0]
    files = [(f"10_{folder}/{number}.png".encode(page), image) for number, image in enumerate((RED, BLUE))]
    prepared = prepare(raw_zip(files), tmp_path)
    assert {pair.prompt for pair in prepared.pairs} == {folder}
    assert f"read as {page}" in next(one.message for one in prepared.findings if one.code == "archive_path")


@pytest.mark.parametrize("page", ["cp866", "gbk"])
def test_a_tars_names_in_a_code_page_are_read_too(page: str, tmp_path: Path) -> None:
    chosen, rejected = NAMES[page]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding=page) as archive:
        for name, data in ((chosen, RED), (rejected, BLUE)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        table = jsonl({"prompt": "p", "chosen": chosen, "rejected": rejected})
        entry = tarfile.TarInfo("metadata.jsonl")
        entry.size = len(table)
        archive.addfile(entry, io.BytesIO(table))
    assert pairs(prepare(file.getvalue(), tmp_path)) == [("p", "red", "blue")]


def test_names_of_one_archive_are_in_one_code_page_though_some_could_be_utf8(tmp_path: Path) -> None:
    chosen, rejected = NAMES["gbk"]
    assert rejected.encode("gbk").decode("utf-8") != rejected
    files = [(chosen.encode("gbk"), RED), (rejected.encode("gbk"), BLUE)]
    table = jsonl({"prompt": "p", "chosen": chosen, "rejected": rejected})
    assert pairs(prepare(raw_zip([(b"metadata.jsonl", table), *files]), tmp_path)) == [("p", "red", "blue")]


def test_bytes_that_no_code_page_makes_words_of_are_refused_with_what_to_do(tmp_path: Path) -> None:
    files = [(name.encode(), data) for name, data in good_files().items()]
    finding = only(prepare(raw_zip([*files, (b"\xb0\xb1\xb2\xb3\xb4.png", RED)]), tmp_path).findings)
    assert (finding.code, finding.severity) == ("archive_path", "error")
    assert "encoding" in finding.message


@pytest.mark.parametrize("stale", [False, True])
def test_a_name_in_zips_extra_field_is_taken_unless_it_is_another_entrys(stale: bool, tmp_path: Path) -> None:
    row = jsonl({"prompt": "p", "chosen": "?.png" if stale else "狐.png", "rejected": "b.png"})
    extra = unicode_path(b"renamed.png" if stale else b"?.png", "狐.png")
    prepared = prepare(raw_zip([(b"?.png", RED), (b"b.png", BLUE), (b"metadata.jsonl", row)], extra), tmp_path)
    assert (pairs(prepared), prepared.findings) == ([("p", "red", "blue")], ())


def test_a_damaged_extra_field_is_passed_over(tmp_path: Path) -> None:
    row = jsonl({"prompt": "p", "chosen": "a.png", "rejected": "b.png"})
    files = [(b"a.png", RED), (b"b.png", BLUE), (b"metadata.jsonl", row)]
    for extra in (b"\x75\x70\x02\0\x01\0", b"\xfe\xca\0\0", unicode_path(b"other", "c.png")):
        assert pairs(prepare(raw_zip(files, extra), tmp_path)) == [("p", "red", "blue")]


@pytest.mark.parametrize("written", ["images\\a.png", "images/a.png"])
@pytest.mark.parametrize("packed", ["images\\", "images/"])
def test_the_backslashes_of_old_powershell_are_slashes(written: str, packed: str, tmp_path: Path) -> None:
    row = jsonl({"prompt": "p", "chosen": written, "rejected": written.replace("a.png", "b.png")})
    files = [(b"metadata.jsonl", row), (packed.encode(), b"")]
    files += [(f"{packed}{name}.png".encode(), image) for name, image in (("a", RED), ("b", BLUE))]
    prepared = prepare(raw_zip(files), tmp_path)
    assert (pairs(prepared), prepared.findings) == ([("p", "red", "blue")], ())


@pytest.mark.parametrize("name", ["..\\escape.png", "C:\\escape.png", "\\escape.png"])
def test_backslashes_lead_out_of_no_archive(name: str, tmp_path: Path) -> None:
    row = jsonl({"prompt": "p", "chosen": "a.png", "rejected": "b.png"})
    files = [("metadata.jsonl", row), ("a.png", RED), ("b.png", BLUE), (name, GREEN)]
    assert codes(prepare(raw_zip([(path.encode(), data) for path, data in files]), tmp_path)) == ["archive_path"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_that_is_twice_in_the_archive_is_one_or_is_refused(kind: str, tmp_path: Path) -> None:
    files = [*good_files().items(), ("images/a.png", good_files()["images/a.png"])]
    pack = (lambda some: raw_zip([(name.encode(), data) for name, data in some])) if kind == "zip" else tar_of
    prepared = prepare(pack(files), tmp_path)
    assert (pairs(prepared), prepared.findings) == ([("a red fox", "red", "blue")], ())
    finding = only(prepare(pack([*files, ("images/a.png", GREEN)]), tmp_path).findings)
    assert (finding.code, finding.file) == ("archive_path", "images/a.png")
    assert "twice" in finding.message


def special(name: str, kind: bytes, data: bytes = b"", link: str = "") -> bytes:
    """One entry of a tar with its body, of any type."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname = kind, len(data), link
    return entry.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


@pytest.mark.parametrize(
    "entry",
    [
        special("my pairs", b"V"),
        special("images", b"D", b"Ya.png\0Yb.png\0\0"),
        special("pax", b"X", b"13 foo=value\n"),
    ],
)
def test_what_gnu_tar_writes_besides_files_is_passed_over(entry: bytes, tmp_path: Path) -> None:
    prepared = prepare(entry + tar_of(good_files().items()), tmp_path)
    assert (pairs(prepared), prepared.findings) == ([("a red fox", "red", "blue")], ())


@pytest.mark.parametrize("long", [False, True])
def test_a_hard_link_is_the_file_that_it_names(long: bool, tmp_path: Path) -> None:
    target = f"{'d' * 90}/{'a' * 90}.png" if long else "a.png"
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = tarfile.LNKTYPE, target
    rows = [{"prompt": "p", "chosen": "b.png", "rejected": "c.png"}]
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        files: list[tuple[str | tarfile.TarInfo, bytes]] = [(target, RED), (link, b""), ("c.png", BLUE)]
        prepared = prepare(tar_of([*files, ("metadata.jsonl", jsonl(*rows))], format_=format_), tmp_path)
        assert (pairs(prepared), prepared.findings) == ([("p", "red", "blue")], ())


def test_a_hard_link_to_a_file_outside_the_archive_is_refused(tmp_path: Path) -> None:
    archive = special("b.png", b"1", link="/etc/passwd") + tar_of(good_files().items())
    assert codes(prepare(archive, tmp_path)) == ["archive_entry_type"]


@pytest.mark.parametrize("format_", ["gnu", "posix"])
def test_a_sparse_file_is_refused_by_its_own_name_and_what_follows_is_read(format_: str, tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("there is no tar program")
    for name, data in good_files().items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    with (tmp_path / "d" / "0.bin").open("wb") as holes:
        for place in range(30):  # more than fit one header
            holes.seek(place * 100_000)
            holes.write(b"x")
    command = ["tar", "cf", "sparse.tar", f"--format={format_}", "--sparse", "-C", "d", "0.bin", *good_files()]
    subprocess.run(command, cwd=tmp_path, check=True)
    prepared = prepare((tmp_path / "sparse.tar").read_bytes(), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.file) == ("archive_entry_type", "0.bin")
    assert "--sparse" in finding.message
    assert prepared.count == 1


TAR = tar_of(good_files().items())
HALVES = TAR[:1000], TAR[1000:]


def zstandard(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"size"


@pytest.mark.parametrize(
    "packed",
    [
        b"".join(gzip.compress(half, mtime=0) for half in HALVES),
        gzip.compress(TAR, mtime=0) + b"what some downloads append",
        gzip.compress(TAR, mtime=0) + bytes(1000),
        gzip.compress(TAR, mtime=0) + gzip.compress(b"", mtime=0),
        b"".join(zstandard(half) for half in HALVES),
        b"".join(SKIPPABLE + zstandard(half) for half in HALVES),
        SKIPPABLE.replace(b"\x50", b"\x5e") + zstandard(TAR) + SKIPPABLE,
        TAR + b"garbage" * 100,
    ],
)
def test_tars_in_parts_and_with_something_behind_them_are_read(packed: bytes, tmp_path: Path) -> None:
    prepared = prepare(packed, tmp_path)
    assert (pairs(prepared), prepared.findings) == ([("a red fox", "red", "blue")], ())


@pytest.mark.parametrize("cut", [3, 12, 100, -10, -1])
def test_a_gzip_file_that_is_cut_off_is_unreadable(cut: int, tmp_path: Path) -> None:
    assert codes(prepare(gzip.compress(TAR, mtime=0)[:cut], tmp_path)) == ["archive_unreadable"]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "empty"),
        (bytes(10240), "a tar file without any entry"),
        (b"\xfd7zXZ\0" + bytes(20), "an xz file"),
        (b"BZh91AY&SY", "a bzip2 file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    ],
)
def test_an_archive_of_another_kind_is_named(data: bytes, name: str, tmp_path: Path) -> None:
    finding = only(prepare(data, tmp_path).findings)
    assert finding.code == "archive_unreadable"
    assert f"is {name}; pack the folder as one of zip, tar, tar.gz or tar.zst" in finding.message


def test_a_zip_that_was_to_be_split_is_read(tmp_path: Path) -> None:
    """Its first bytes say that one part sufficed; the offsets in it count from there."""
    archive = io.BytesIO(b"PK\x07\x08")
    archive.seek(4)
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in good_files().items():
            opened.writestr(name, data)
    assert pairs(prepare(archive.getvalue(), tmp_path)) == [("a red fox", "red", "blue")]


def test_zip_of_is_still_what_a_program_of_today_writes(tmp_path: Path) -> None:
    files = good_files() | {"images/\u72d0.png": GREEN}
    assert prepare(zip_of(files.items()), tmp_path).findings == ()
