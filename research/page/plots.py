"""The report's images: plots as SVG, the same bytes for the same figures, and grids of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw, ImageFont

from demo.emoji import openmoji
from demo.emoji.openmoji import IMAGE_SIZE
from research.statistics.intervals import Interval

COLOURS = {
    "SFT": "#71717a",
    "Diffusion-DPO": "#2563eb",
    "MaPO (paper)": "#dc2626",
    "MaPO (reference code)": "#f59e0b",
    "DreamBooth": "#059669",
    "DCO": "#7c3aed",
}
LABEL_WIDTH, GAP = 150, 4
HEAD_HEIGHT, HEAD_LETTERS = 30, 12  # two lines of a prompt above a column
ASIDE = 0.006  # to the right, so that intervals at one place do not cover each other
Points = Sequence[tuple[float, Interval]]


def scatter(path: Path, series: Mapping[str, Mapping[str, tuple[float, Interval]]], *, x: str, y: str) -> None:
    """Named points with vertical intervals, about the line of no difference; the first series' points are labelled."""
    figure, axes = _figure()
    axes.axhline(0, color="#a1a1aa", linewidth=1)
    for order, (points, colour) in enumerate(zip(series.values(), ("#dc2626", "#71717a"), strict=True)):
        for name, (at, value) in points.items():
            _point(axes, at + order * ASIDE, value, colour)
            if not order:
                axes.annotate(name, (at, value.mean), xytext=(7, 5), textcoords="offset points", fontsize=9)
    handles = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in ("#dc2626", "#71717a")]
    axes.legend(handles, list(series), fontsize=8, frameon=False, loc="lower left")
    _save(figure, axes, path, x, y)


def lines(path: Path, series: Mapping[str, Points], *, x: str, y: str, logarithmic: bool = True) -> None:
    figure, axes = _figure()
    for name, points in series.items():
        colour = COLOURS.get(name, "#18181b")
        axes.plot(
            [at for at, _ in points], [value.mean for _, value in points], color=colour, label=name, linewidth=1.5
        )
        for at, value in points:
            _point(axes, at, value, colour)
    if logarithmic:
        axes.set_xscale("log")
        ticks = sorted({at for points in series.values() for at, _ in points})
        axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
        axes.set_xticks([], minor=True)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, axes, path, x, y)


def sheet(path: Path, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> None:
    """Labelled rows of samples, a prompt above each column."""
    cell = IMAGE_SIZE + GAP
    page = Image.new("RGB", (LABEL_WIDTH + len(heads) * cell, HEAD_HEIGHT + len(rows) * cell + 20), "white")
    draw, font, small = ImageDraw.Draw(page), ImageFont.load_default(12), ImageFont.load_default(10)
    for column, head in enumerate(heads):
        lines = "\n".join(wrap(head, HEAD_LETTERS))
        draw.multiline_text((LABEL_WIDTH + column * cell, 2), lines, fill="#18181b", font=small, spacing=1)
    for row, (label, images) in enumerate(rows):
        top = HEAD_HEIGHT + row * cell
        draw.text((4, top + IMAGE_SIZE // 2 - 6), label, fill="#18181b", font=font)
        for column, image in enumerate(images):
            page.paste(image, (LABEL_WIDTH + column * cell, top))
    draw.text((4, page.height - 16), openmoji.ATTRIBUTION, fill="#71717a", font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=88, method=6)


def _figure() -> tuple[Figure, Axes]:
    mpl.rcParams["svg.hashsalt"] = "pairtune"  # otherwise element ids are drawn by chance
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _point(axes: Axes, at: float, value: Interval, colour: str) -> None:
    axes.errorbar(
        [at],
        [value.mean],
        yerr=[[value.mean - value.low], [value.high - value.mean]],
        fmt="o",
        markersize=5,
        capsize=3,
        color=colour,
    )


def _save(figure: Figure, axes: Axes, path: Path, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e7", linewidth=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
