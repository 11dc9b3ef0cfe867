"""The report's grids of samples, one a domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from PIL import Image

from demo.emoji import drawings, openmoji, subject
from demo.emoji.domains import DOMAINS, NAMES, SUBJECT_PROMPT, Name
from demo.emoji.openmoji import IMAGE_SIZE
from research.page import plots
from research.page.effects import FOLDER
from research.page.published import runs
from research.plan import WHOLE
from research.trial import TITLES, MethodName, Results
from research.trials.judging import shown_prompts


def draw_sheets(results: Results, home: Path, folder: Path) -> None:
    """One sheet a domain; where a machine lacks strips of a method the sheet that is there stays."""
    for domain in NAMES:
        rows = [
            (TITLES[method], strip)
            for method in WHOLE.methods_in(domain)
            if (strip := strip_of(domain, method, results, home)) is not None
        ]
        if len(rows) < len(WHOLE.methods_in(domain)):
            continue
        prompts = shown_prompts(domain, "test")
        drawn = [("wanted", wanted(domain, prompts)), ("base", cells(rows[0][1], 1))]
        heads = [prompt.removeprefix("an emoji of ") for prompt in prompts]
        plots.sheet(folder / f"{domain}.webp", heads, [*drawn, *((title, cells(strip, 0)) for title, strip in rows)])


def sheet_section(folder: Path) -> Iterator[str]:
    yield "## Samples"
    yield ""
    yield (
        "Test prompts, first training seed; in each column the same prompt, and from the base's row on the same noise. *Wanted*: the "
        f"chosen drawings, which no adapter was trained on. For the new subject they show it in its test poses, which no "
        f'prompt asks for; the first prompt there, "{SUBJECT_PROMPT}", is the one that it was learnt with, and the last five are '
        "other prompts, whose drawings should stay as they are."
    )
    yield ""
    for domain in NAMES:
        if (folder / f"{domain}.webp").is_file():
            yield f"### {domain}"
            yield ""
            yield f"![Wanted, and samples of the base and of every method, {domain}]({FOLDER}/{domain}.webp)"
            yield ""


def wanted(domain: Name, prompts: Sequence[str]) -> list[Image.Image]:
    """What is chosen for each prompt; for the new subject its test poses in turn, and other emoji as they are."""
    emoji = {one.caption: one for one in openmoji.catalogue()}
    if domain == "personalization":
        poses = cycle(subject.TEST)
        return [drawings.colour(emoji[prompt]) if prompt in emoji else subject.draw(next(poses)) for prompt in prompts]
    return [DOMAINS[domain].chosen(emoji[prompt]) for prompt in prompts]


def strip_of(domain: Name, method: MethodName, results: Results, home: Path) -> Image.Image | None:
    found = runs(domain, method, WHOLE, results)
    path = home / "strips" / f"{found[0].trial.key}.png" if found else None
    return Image.open(path) if path is not None and path.is_file() else None


def cells(strip: Image.Image, row: int) -> list[Image.Image]:
    side = IMAGE_SIZE
    return [strip.crop((left, row * side, left + side, (row + 1) * side)) for left in range(0, strip.width, side)]
