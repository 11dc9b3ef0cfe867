"""The report's sheets of samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from demo.benchmark import plots
from demo.benchmark.domains import NAMES, Name
from demo.benchmark.effects import FOLDER
from demo.benchmark.plan import WHOLE
from demo.benchmark.published import runs
from demo.benchmark.trial import TITLES, MethodName, Results
from demo.emoji_xl import IMAGE_SIZE


def sheets(results: Results, home: Path, folder: Path) -> Iterator[str]:
    """One sheet a domain; where a machine lacks strips of a method the sheet that is there stays."""
    yield "## Samples"
    yield ""
    yield "Test prompts of the first seed; in each column the same prompt and noise. No pair of these emoji was trained on."
    yield ""
    for domain in NAMES:
        picture = folder / f"{domain}.webp"
        rows = [
            (TITLES[method], strip)
            for method in WHOLE.methods_in(domain)
            if (strip := strip_of(domain, method, results, home)) is not None
        ]
        if len(rows) == len(WHOLE.methods_in(domain)):
            base = ("base", cells(rows[0][1], 1))
            plots.sheet(picture, [base, *((title, cells(strip, 0)) for title, strip in rows)])
        if picture.is_file():
            yield f"### {domain}"
            yield ""
            yield f"![Samples of the base and of every method, {domain}]({FOLDER}/{domain}.webp)"
            yield ""


def strip_of(domain: Name, method: MethodName, results: Results, home: Path) -> Image.Image | None:
    found = runs(domain, method, WHOLE, results)
    path = home / "strips" / f"{found[0].trial.key}.png" if found else None
    return Image.open(path) if path is not None and path.is_file() else None


def cells(strip: Image.Image, row: int) -> list[Image.Image]:
    side = IMAGE_SIZE
    return [strip.crop((left, row * side, left + side, (row + 1) * side)) for left in range(0, strip.width, side)]
