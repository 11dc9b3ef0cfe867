from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from intake.limits import MIB, Limits
from tests.intake.build import CENTRAL, codes, good_files, jsonl, only, patch_central, png, prepare, tar_of, zip_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

pytestmark = pytest.mark.unit

Pack = Callable[[Iterable[tuple[str, bytes]]], bytes]

# Offsets of fields within a central directory record of a zip.
SIZE, HEADER_OFFSET = 24, 42


@pytest.mark.parametrize(
    "name",
    [
        "../escape.png",
        "images/../../escape.png",
        "/etc/escape.png",
        "C:/escape.png",
        "images\\escape.png",
        "new\nline.png",
        "n" * 1100,
        "./.",
    ],
)
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_unsafe_names_are_refused(name: str, pack: Pack, tmp_path: Path) -> None:
    prepared = prepare(pack((good_files() | {name: png()}).items()), tmp_path)
    assert codes(prepared) == ["archive_path"]
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "work"}


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_the_longest_name_allowed_is_read(pack: Pack, tmp_path: Path) -> None:
    longest = "n" * (Limits().path_characters - len("d/.png"))
    assert codes(prepare(pack((good_files() | {f"d/{longest}.png": png()}).items()), tmp_path)) == []
    assert codes(prepare(pack((good_files() | {f"d/{longest}n.png": png()}).items()), tmp_path)) == ["archive_path"]


def test_a_name_with_nul_is_refused(tmp_path: Path) -> None:
    archive = zip_of((good_files() | {"images/c.png\u00a0x": png()}).items())
    assert codes(prepare(archive.replace(b"c.png\xc2\xa0x", b"c.png\0xx"), tmp_path)) == ["archive_path"]


@pytest.mark.parametrize("other", ["images/A.png", "IMAGES/a.PNG", "images/./a.png"])
def test_names_that_collide_are_refused(other: str, tmp_path: Path) -> None:
    prepared = prepare(tar_of((good_files() | {other: png()}).items()), tmp_path)
    finding = only(prepared.findings)
    assert finding.code == "archive_path"
    assert "images/a.png" in finding.message


def test_names_that_differ_in_unicode_form_only_are_refused(tmp_path: Path) -> None:
    files = good_files() | {"images/\u00e9.png": png(), "images/e\u0301.png": png((1, 2, 3))}
    assert codes(prepare(zip_of(files.items()), tmp_path)) == ["archive_path"]


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_tar_entries_that_are_no_regular_files_are_refused(kind: bytes, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("images/link.png")
    entry.type, entry.linkname = kind, "/etc/passwd"
    prepared = prepare(tar_of([*good_files().items(), (entry, b"")]), tmp_path)
    assert codes(prepared) == ["archive_entry_type"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_entries_that_are_no_regular_files_are_refused(mode: int, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("images/link.png")
    entry.create_system, entry.external_attr = 3, (mode | 0o777) << 16
    finding = only(prepare(zip_of([*good_files().items(), (entry, b"/etc/passwd")]), tmp_path).findings)
    assert finding.code == "archive_entry_type"
    assert ("symbolic link" in finding.message) == (mode == stat.S_IFLNK)


def test_a_zip_bomb_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    bomb = zip_of((good_files() | {"zeros.bin": bytes(80 * MIB)}).items())
    assert len(bomb) < MIB
    prepared = prepare(bomb, tmp_path)
    assert codes(prepared) == ["archive_limits"]
    assert prepared.images == {}


def test_a_gzip_bomb_stops_at_the_limit_and_leaves_nothing(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(20 * MIB), 1)
    prepared = prepare(bomb, tmp_path, Limits(compression_ratio_from=2 * MIB))
    assert codes(prepared) == ["archive_limits"]
    assert [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()] == ["pairs.jsonl"]
    assert prepared.count == 0


def test_total_size_is_limited(tmp_path: Path) -> None:
    files = good_files() | {"notes.txt": b"x" * 4000}
    for archive in (zip_of(files.items()), tar_of(files.items()), tar_of(files.items(), "w:gz")):
        assert codes(prepare(archive, tmp_path, Limits(archive_bytes=3000))) == ["archive_limits"]


@pytest.mark.parametrize(("declared", "code"), [(5, "archive_limits"), (5000, "archive_limits")])
def test_an_entry_with_a_lying_size_is_refused(declared: int, code: str, tmp_path: Path) -> None:
    archive = patch_central(zip_of(good_files().items()), 1, SIZE, declared)
    finding = only(prepare(archive, tmp_path).findings)
    assert (finding.code, finding.file, finding.row) == (code, "images/a.png", 1)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    archive = patch_central(zip_of(good_files().items()), 2, HEADER_OFFSET, 0)
    finding = only(prepare(archive, tmp_path).findings)
    assert (finding.code, "overlap" in finding.message) == ("archive_limits", True)


def test_entries_that_share_a_few_bytes_are_refused(tmp_path: Path) -> None:
    """The second begins ten bytes before the first one's end: less than a local header."""
    archive = zip_of(good_files().items())
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        second = opened.infolist()[1]
    finding = only(prepare(patch_central(archive, 1, HEADER_OFFSET, second.header_offset - 50), tmp_path).findings)
    assert (finding.code, "overlap" in finding.message) == ("archive_limits", True)


def _zip_with_directory_of(count: int) -> bytes:
    """A small zip whose one directory record is listed ``count`` times."""
    archive = zip_of([("a", b"")])
    directory_at, end_at = archive.index(CENTRAL), archive.rindex(b"PK\x05\x06")
    record = archive[directory_at:end_at] * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(record), directory_at, 0)
    return archive[:directory_at] + record + end


@pytest.mark.slow
def test_more_entries_than_fifty_thousand_pairs_need_are_refused(tmp_path: Path) -> None:
    finding = only(prepare(_zip_with_directory_of(262_145), tmp_path).findings)
    assert (finding.code, "262,144 entries" in finding.message) == ("archive_limits", True)


def test_an_oversized_zip_directory_is_refused_unread(tmp_path: Path) -> None:
    finding = only(prepare(_zip_with_directory_of(400), tmp_path, Limits(archive_entries=10)).findings)
    assert (finding.code, "table of contents" in finding.message) == ("archive_limits", True)


def test_too_many_tar_entries_are_refused(tmp_path: Path) -> None:
    files = [(f"{number}.txt", b"") for number in range(20)]
    assert codes(prepare(tar_of(files), tmp_path, Limits(archive_entries=10))) == ["archive_limits"]


def test_an_archive_inside_the_archive_is_refused(tmp_path: Path) -> None:
    files = good_files() | {"more.zip": zip_of(good_files().items())}
    finding = only(prepare(zip_of(files.items()), tmp_path).findings)
    assert (finding.code, finding.file) == ("archive_limits", "more.zip")


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    archive = zip_of(good_files().items())
    at = archive.index(CENTRAL) + 8
    finding = only(prepare(archive[:at] + b"\x01" + archive[at + 1 :], tmp_path).findings)
    assert (finding.code, "password" in finding.message) == ("archive_unreadable", True)


def test_a_zip_with_bzip2_names_the_method_to_use(tmp_path: Path) -> None:
    finding = only(prepare(zip_of(good_files().items(), zipfile.ZIP_BZIP2), tmp_path).findings)
    assert (finding.code, "deflate" in finding.message) == ("archive_unreadable", True)


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    archive = zip_of(good_files().items(), compression=0)
    data = good_files()["images/b.png"]
    prepared = prepare(archive.replace(data, data[:-1] + b"\0"), tmp_path)
    finding = only(prepared.findings)
    assert (finding.code, finding.file) == ("archive_unreadable", "images/b.png")


@pytest.mark.parametrize("mode", ["zip", "w:", "w:gz"])
def test_every_cut_of_an_archive_ends_in_a_finding(mode: Literal["zip", "w:", "w:gz"], tmp_path: Path) -> None:
    files = good_files().items()
    archive = zip_of(files) if mode == "zip" else tar_of(files, mode)
    end = len(archive) if mode != "w:" else archive.index(png((0, 0, 255))) + 5  # then only padding and end marks
    for cut in range(0, end, max(1, end // 40)):
        prepared = prepare(archive[:cut], tmp_path)
        assert not prepared.usable
        assert prepared.findings


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x1f\x8bnot gzip", b"Rar!\x1a\x07", bytes(2048), gzip.compress(b"text", mtime=0)]
)
def test_what_is_no_archive_is_unreadable(data: bytes, tmp_path: Path) -> None:
    prepared = prepare(data, tmp_path)
    assert (codes(prepared), prepared.format, prepared.usable) == (["archive_unreadable"], "unknown", False)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names_in_a_tar_are_read(format_: int, tmp_path: Path) -> None:
    long = f"{'d' * 90}/{'f' * 90}.png"
    files = good_files() | {long: png((1, 2, 3))}
    row = {"prompt": "p", "chosen": long, "rejected": "images/b.png"}
    if format_ != tarfile.USTAR_FORMAT:
        files["images/\u72d0.png"] = png((99, 2, 200))
        row["rejected"] = "images/\u72d0.png"
    files["metadata.jsonl"] = jsonl(row)
    assert prepare(tar_of(files.items(), format_=format_), tmp_path).findings == ()


def test_a_tar_cut_in_a_file_that_no_row_names_is_unreadable(tmp_path: Path) -> None:
    archive = tar_of((good_files() | {"notes.txt": b"n" * 5000}).items())
    assert codes(prepare(archive[: archive.index(b"nnn") + 600], tmp_path)) == ["archive_unreadable"]


def test_an_oversized_tar_extension_header_is_refused_unread(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.pax_headers = {"comment": "x" * 100_000}
    prepared = prepare(tar_of([(entry, b"")]), tmp_path)
    assert codes(prepared) == ["archive_limits"]


@pytest.mark.parametrize("record", [b"20 comment=no newline", b"11 comment\n", b"5 a=bc", b"0 path=x\n", b"x path=y\n"])
def test_a_damaged_pax_record_makes_a_tar_unreadable(record: bytes, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.pax_headers = {"comment": "0123456789012345678901234567890123456789"}
    archive = tar_of([(entry, b""), *good_files().items()])
    at = archive.index(b"comment=") - len(b"51 ")
    broken = archive[:at] + record + bytes(512 - len(record)) + archive[at + 512 :]
    assert codes(prepare(broken, tmp_path)) == ["archive_unreadable"]


def test_thousands_of_chained_extension_headers_end_in_a_finding(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.pax_headers = {"comment": "x"}
    one = tar_of([(entry, b"")])
    extension = one[: one.index(b"a.png\0", 512)]
    prepared = prepare(extension * 3000 + tar_of(good_files().items()), tmp_path, Limits(archive_entries=100))
    assert codes(prepared) == ["archive_limits"]


def test_a_header_whose_checksum_takes_six_digits_is_read(tmp_path: Path) -> None:
    name = f"{'~' * 150}/{'~' * 90}.txt"
    archive = tar_of([(name, b"notes"), *good_files().items()], format_=tarfile.USTAR_FORMAT)
    assert archive[148:149] > b"0"  # the first of them
    assert prepare(archive, tmp_path).count == 1


def test_a_folders_entry_is_none_of_the_files(tmp_path: Path) -> None:
    """Old tars mark one by a slash at the end of the name alone."""
    folder = tarfile.TarInfo("images/")
    folder.type = tarfile.AREGTYPE
    prepared = prepare(tar_of([(folder, b""), *good_files().items()], format_=tarfile.USTAR_FORMAT), tmp_path)
    assert (prepared.findings, prepared.count) == ((), 1)


def test_a_size_in_base_256_is_read_as_gnu_tar_writes_it(tmp_path: Path) -> None:
    archive = tar_of(good_files().items())
    size = len(good_files()["metadata.jsonl"])
    header = archive[:124] + b"\x80" + size.to_bytes(11, "big") + archive[136:148] + b" " * 8 + archive[156:512]
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    prepared = prepare(header + archive[512:], tmp_path)
    assert (prepared.findings, prepared.count) == ((), 1)


def test_a_negative_size_in_a_tar_ends_in_a_finding(tmp_path: Path) -> None:
    archive = tar_of(good_files().items())
    header = archive[:124] + b"\xff" * 12 + archive[136:148] + b" " * 8 + archive[156:512]
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    assert codes(prepare(header + archive[512:], tmp_path)) == ["archive_unreadable"]


def test_utf8_names_without_the_zip_flag_are_read_as_macos_writes_them(tmp_path: Path) -> None:
    entry_name = "images/\u00e9.png"
    files = good_files() | {entry_name: png((0, 255, 0))}
    files["metadata.jsonl"] = jsonl({"prompt": "p", "chosen": entry_name, "rejected": "images/b.png"})
    archive = bytearray(zip_of(files.items()))
    for signature, flags_at in ((b"PK\x03\x04", 6), (CENTRAL, 8)):
        start = 0
        while (at := archive.find(signature, start)) >= 0:
            archive[at + flags_at + 1] &= ~0x08
            start = at + 1
    with zipfile.ZipFile(io.BytesIO(bytes(archive))) as opened:
        assert entry_name not in opened.namelist()
    assert prepare(bytes(archive), tmp_path).findings == ()


class _Stream(io.RawIOBase):
    """What a program writes a zip to that goes into a pipe: sizes follow the entries, as they cannot be filled in."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        content = bytes(data)
        self.data += content
        return len(content)

    def getvalue(self) -> bytes:
        return self.data


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_zips_of_the_large_form_and_streamed_ones_are_read(zip64: bool, streamed: bool, tmp_path: Path) -> None:
    file = _Stream() if streamed else io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in good_files().items():
            with archive.open(name, "w", force_zip64=zip64) as entry:
                entry.write(data)
    prepared = prepare(file.getvalue(), tmp_path)
    assert (codes(prepared), len(prepared.pairs)) == ([], 1)
