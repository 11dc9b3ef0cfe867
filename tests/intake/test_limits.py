"""Limits: what is exactly at one is accepted, and docs/reference/findings.md states each as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from intake.archives.entries import check_count, check_total
from intake.errors import ArchiveError
from intake.limits import GIB, MIB, Limits
from tests.intake.build import codes, jsonl, only, png, prepare, zip_of

pytestmark = pytest.mark.unit
DATA_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "findings.md"


def test_an_archive_may_unpack_to_exactly_its_limit() -> None:
    limits = Limits(archive_bytes=1000, compression_ratio=10, compression_ratio_from=100)
    check_total(1000, 1000, limits)
    with pytest.raises(ArchiveError, match="1,000 bytes"):
        check_total(1001, 1000, limits)


def test_a_high_ratio_counts_only_above_a_total() -> None:
    limits = Limits(archive_bytes=1000, compression_ratio=10, compression_ratio_from=100)
    check_total(100, 1, limits)
    check_total(500, 50, limits)
    with pytest.raises(ArchiveError, match="10 times its size"):
        check_total(501, 50, limits)


def test_an_archive_may_have_exactly_as_many_entries_as_its_limit() -> None:
    check_count(10, Limits(archive_entries=10))
    with pytest.raises(ArchiveError):
        check_count(11, Limits(archive_entries=10))


def test_the_page_on_data_states_the_limits() -> None:
    assert (MIB, GIB) == (1_048_576, 1_073_741_824)
    limits, page = Limits(), DATA_PAGE.read_text(encoding="utf-8")
    assert f"Too many entries or rows ({limits.archive_entries:,})" in page
    assert limits.rows == limits.archive_entries
    unpacked = f"({limits.archive_bytes // GIB} GiB, or {limits.compression_ratio} times the packed size)"
    assert f"too many bytes unpacked {unpacked}" in page
    assert f"too many pixels ({limits.upload_pixels:,} in all; or {limits.pixels_per_byte:,} for each byte" in page
    assert f"above {limits.pixels_per_byte_from:,})" in page
    assert f"larger than {limits.metadata_bytes // MIB} MiB" in page
    assert f"More than {limits.prompt_characters:,} characters" in page
    assert f"More than {limits.image_pixels:,} pixels or {limits.image_bytes // MIB} MiB." in page


FLAT = png(size=(200, 100))  # 20,000 pixels in some hundred bytes


@pytest.mark.parametrize(("pixels", "accepted"), [(60_000, True), (59_999, False)])
def test_the_pixels_of_an_upload_are_limited_however_few_bytes_they_have(
    tmp_path: Path, pixels: int, accepted: bool
) -> None:
    """An image under another name is decoded again, and counts again."""
    names = [f"{number}.png" for number in range(3)]
    rows = [{"prompt": f"prompt {name}", "chosen": name} for name in names]
    archive = zip_of([("metadata.jsonl", jsonl(*rows)), *((name, FLAT) for name in names)])
    prepared = prepare(archive, tmp_path, Limits(upload_pixels=pixels))
    assert prepared.usable is accepted
    assert ("archive_limits" in codes(prepared)) is not accepted


def test_many_pixels_a_byte_are_refused_above_a_total(tmp_path: Path) -> None:
    archive = zip_of([("metadata.jsonl", jsonl({"prompt": "a", "chosen": "a.png"})), ("a.png", FLAT)])
    ratio = 20_000 // len(archive)
    for name, limits in {
        "below the total": Limits(pixels_per_byte=1, pixels_per_byte_from=20_000),
        "below the ratio": Limits(pixels_per_byte=ratio + 1, pixels_per_byte_from=1),
    }.items():
        (tmp_path / name).mkdir()
        assert prepare(archive, tmp_path / name, limits).usable, name
    (tmp_path / "above both").mkdir()
    refused = prepare(archive, tmp_path / "above both", Limits(pixels_per_byte=ratio, pixels_per_byte_from=19_999))
    found = only(finding for finding in refused.findings if finding.code == "archive_limits")
    assert f"more than {ratio:,} pixels for each of its bytes" in found.message
