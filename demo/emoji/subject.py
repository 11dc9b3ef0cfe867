"""The new subject of the personalization domain: a creature that OpenMoji lacks and the base has never seen.

It has OpenMoji's line and palette, so that what is new is what it is, not how it is drawn. Drawn for this project.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import resvg_py
from PIL import Image

from demo.emoji.openmoji import IMAGE_SIZE

NAME = "zibu"


@dataclass(frozen=True)
class Pose:
    """How one picture shows it: size in parts of the whole, turn in degrees, shift in 72nds of the picture."""

    size: float = 1.0
    turn: float = 0.0
    right: float = 0.0
    down: float = 0.0
    mirrored: bool = False
    eye_closed: bool = False


TRAINING = (
    Pose(),
    Pose(size=0.8, turn=-12, right=-5, down=2),
    Pose(size=0.9, turn=10, right=3, mirrored=True),
    Pose(size=0.7, right=6, down=6, eye_closed=True),
    Pose(size=1.05, turn=-4, down=-2, mirrored=True),
    Pose(size=0.85, turn=18, right=-3, down=-3),
)
VALIDATION = (Pose(size=0.95, turn=6, eye_closed=True), Pose(size=0.75, turn=-8, right=4, mirrored=True))
TEST = (
    Pose(size=0.9, turn=-6, right=2, down=3, mirrored=True),
    Pose(size=0.8, turn=14, eye_closed=True),
    Pose(size=1.0, turn=-10, right=-2),
    Pose(size=0.7, turn=4, right=-6, down=-4, mirrored=True, eye_closed=True),
)

_LINE = 'fill="none" stroke="#000" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"'
_BODY = "M36 18c-13 0-21 10-21 23 0 12 8 19 21 19s21-7 21-19c0-13-8-23-21-23z"
_OPEN_EYE = """<circle cx="36" cy="34" r="9" fill="#fff" stroke="#000" stroke-width="2"/>
  <circle cx="38" cy="34" r="4" fill="#000"/>"""
_CLOSED_EYE = f'<path d="M27 33c3 6 15 6 18 0" {_LINE}/>'
_DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">
<g transform="translate({x} {y}) rotate({turn}) scale({across} {size}) translate(-36 -38)">
  <path d="M25 58l-4 8h7M47 58l4 8h-7" {line}/>
  <path d="M36 19c0-6 5-6 5-11" {line}/>
  <circle cx="42" cy="7" r="4" fill="#ea5a47" stroke="#000" stroke-width="2"/>
  <path d="{body}" fill="#61b2e4"/>
  <path d="M16 45c9 5 31 5 40 0 0 4-1 7-3 9-8 4-26 4-34 0-2-2-3-5-3-9z" fill="#fcea2b"/>
  <path d="M16 45c9 5 31 5 40 0M20 53c9 4 23 4 32 0" {line}/>
  <path d="{body}" {line}/>
  {eye}
</g></svg>"""


@cache
def draw(pose: Pose) -> Image.Image:
    """The creature on white, 64 x 64 pixels RGB."""
    svg = _DRAWING.format(
        x=36 + pose.right,
        y=38 + pose.down,
        turn=pose.turn,
        size=pose.size,
        across=-pose.size if pose.mirrored else pose.size,
        eye=_CLOSED_EYE if pose.eye_closed else _OPEN_EYE,
        body=_BODY,
        line=_LINE,
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", width=IMAGE_SIZE, height=IMAGE_SIZE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")
