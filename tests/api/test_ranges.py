"""Ranges and file names, as pure functions."""

from __future__ import annotations

import pytest

from api.errors.errors import RangeNotSatisfiable
from api.files.filenames import attachment, clean
from api.files.ranges import Span, requested_span

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-", Span(0, 10)),
        ("bytes=0-9", Span(0, 10)),
        ("bytes=9-9", Span(9, 1)),
        ("bytes=-3", Span(7, 3)),
        ("bytes=-99", Span(0, 10)),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2,3-4", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_a_range_is_read_as_the_rfc_says(header: str | None, span: Span | None) -> None:
    assert requested_span(header, None, tag='"t"', size=10) == span


def test_no_range_of_an_empty_file_can_be_satisfied() -> None:
    for header in ("bytes=0-", "bytes=-1"):
        with pytest.raises(RangeNotSatisfiable):
            requested_span(header, None, tag='"t"', size=0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("pairs.zip", "pairs.zip"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\pairs.zip", "pairs.zip"),
        ("a\r\nset-cookie: x.zip", "aset-cookie: x.zip"),
        ("\u202egpj.zip\0", "gpj.zip"),
        ("", "upload"),
        ("..", "upload"),
        ("dir/", "upload"),
        ("ä" * 200, "ä" * 127),
    ],
)
def test_a_clients_file_name_is_cleaned(given: str, name: str) -> None:
    assert clean(given) == name


def test_a_download_name_is_quoted_for_old_and_new_clients() -> None:
    quoted = attachment('a"b\\c%20 é☃.zip')
    assert quoted == ("attachment; filename=\"a_b_c_20 __.zip\"; filename*=UTF-8''a%22b%5Cc%2520%20%C3%A9%E2%98%83.zip")
