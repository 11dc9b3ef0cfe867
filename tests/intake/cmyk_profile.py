"""A CMYK profile as a press has one, in ICC.1:2010's words: inks to Lab by a table; small, and unlike ink on white."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

RAMP = bytes(range(256))
IDENTITY = (65536, 0, 0, 0, 65536, 0, 0, 0, 65536)  # s15Fixed16
D50 = (63190, 65536, 54061)


def profile(cyan: tuple[int, int, int]) -> bytes:
    """``cyan``: L* in percent, a* and b*, of full cyan alone; white stays white, and any other full ink is black."""
    tags = {b"desc": _description("a press"), b"cprt": b"text\0\0\0\0CC0\0", b"wtpt": _xyz(), b"A2B0": _table(cyan)}
    offset, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        entries += name + struct.pack(">II", offset + len(body), len(content))
        body += padded
    size = offset + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4sIQI3I4s44x",
        size, b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp", b"none", 0, b"none", 0, 0, 0, *D50,
        b"none",
    )  # fmt: skip
    return header + struct.pack(">I", len(tags)) + entries + body


def _table(cyan: tuple[int, int, int]) -> bytes:
    """lut8Type with two points an ink: the last ink varies fastest."""
    points = b"".join(_lab(_of(inks, cyan)) for inks in itertools.product((0, 1), repeat=4))
    head = struct.pack(">4s4xBBBx9i", b"mft1", 4, 3, 2, *IDENTITY)
    return head + 4 * RAMP + points + 3 * RAMP


def _of(inks: Sequence[int], cyan: tuple[int, int, int]) -> tuple[int, int, int]:
    light: dict[tuple[int, ...], tuple[int, int, int]] = {(0, 0, 0, 0): (100, 0, 0), (1, 0, 0, 0): cyan}
    return light.get(tuple(inks), (0, 0, 0))


def _lab(colour: tuple[int, int, int]) -> bytes:
    lightness, a, b = colour
    return bytes((round(lightness * 2.55), a + 128, b + 128))


def _xyz() -> bytes:
    return struct.pack(">4s4x3I", b"XYZ ", *D50)


def _description(text: str) -> bytes:
    ascii_text = text.encode() + b"\0"
    return struct.pack(">4s4xI", b"desc", len(ascii_text)) + ascii_text + bytes(4 + 4 + 2 + 1 + 67)
