"""The sample grid: a column for each prompt, a row for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, MARGIN, HEADER, FONT = 256, 8, 96, 44, 15  # pixels; larger images are scaled down to a cell
INK, PAPER = "black", "white"


@dataclass(frozen=True)
class GridRow:
    label: str
    images: Sequence[Image.Image]


def grid(prompts: Sequence[str], rows: Sequence[GridRow]) -> Image.Image:
    """Small images are enlarged by whole factors, pixel by pixel: nothing is smoothed that was not smooth."""
    font = ImageFont.load_default(FONT)
    cells = [[fitted(image) for image in row.images] for row in rows]
    width = max((cell.width for row in cells for cell in row), default=CELL)
    height = max((cell.height for row in cells for cell in row), default=CELL)
    canvas = Image.new("RGB", (MARGIN + len(prompts) * (width + GAP), HEADER + len(rows) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, prompt in enumerate(prompts):
        pen.multiline_text((MARGIN + column * (width + GAP), 4), wrapped(prompt, font, width), fill=INK, font=font)
    for line, (row, images) in enumerate(zip(rows, cells, strict=True)):
        top = HEADER + line * (height + GAP)
        pen.text((GAP, top + height / 2), row.label, fill=INK, font=font, anchor="lm")
        for column, image in enumerate(images):
            canvas.paste(image, (MARGIN + column * (width + GAP), top))
    return canvas


def fitted(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest > CELL:
        return image.resize((image.width * CELL // longest, image.height * CELL // longest), Image.Resampling.LANCZOS)
    factor = CELL // longest
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """At most two lines; what does not fit ends in an ellipsis."""
    lines, rest = [], " ".join(text.split())
    for last in (False, True):
        shown = rest
        while font.getlength(shown + ("…" if last and shown != rest else "")) > width and shown:
            shown = shown[:-1] if last or " " not in shown else shown.rpartition(" ")[0]
        lines.append(shown + ("…" if last and shown != rest else ""))
        rest = rest[len(shown) :].lstrip()
        if not rest:
            break
    return "\n".join(lines)
