"""Base against adapter on held-out prompts: the same prompts and seeds, sampled by a plain diffusers pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionXLPipeline
from PIL import Image, ImageDraw, ImageFont

from demo import openmoji
from demo.emoji_xl import IMAGE_SIZE
from demo.sampling import sample
from demo.shape_retrieval import retrieved_right
from demo.style_score import train_scorer
from demo.win_rate import WinRate, win_rate

STEPS = 20
GUIDANCE = 3.0
SEEDS = (0, 1)
SHOWN_COLUMNS = 10
CELL = 112


@dataclass(frozen=True)
class Comparison:
    """``fidelity``: how often a sample is nearest, in shape, to the right one of the held-out emoji."""

    win_rate: WinRate
    scorer_accuracy: float
    base_score: float
    adapter_score: float
    base_fidelity: float
    adapter_fidelity: float


def compare(base: Path, adapter: Path, picture: Path) -> Comparison:
    """Sample both, write the picture, and score them."""
    catalogue = openmoji.catalogue()
    held_out = [emoji for emoji in catalogue if emoji.held_out]
    training = [emoji for emoji in catalogue if not emoji.held_out]
    pipeline = StableDiffusionXLPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [emoji.caption for emoji in held_out]
    before = _sample_rows(pipeline, prompts)
    pipeline.load_lora_weights(adapter)
    after = _sample_rows(pipeline, prompts)
    line, colour = _rendered(held_out, "line"), _rendered(held_out, "color")
    _draw(prompts, before[0], after[0], line, picture)

    scorer = train_scorer(_rendered(training, "line"), _rendered(training, "color"))
    accuracy = np.concatenate([scorer(line) > 0.5, scorer(colour) < 0.5]).mean()
    base_scores = np.stack([scorer(images) for images in before], axis=1)  # (prompts, seeds)
    adapter_scores = np.stack([scorer(images) for images in after], axis=1)
    return Comparison(
        win_rate=win_rate(adapter_scores, base_scores),
        scorer_accuracy=float(accuracy),
        base_score=float(base_scores.mean()),
        adapter_score=float(adapter_scores.mean()),
        base_fidelity=float(np.mean([retrieved_right(images, colour) for images in before])),
        adapter_fidelity=float(np.mean([retrieved_right(images, line) for images in after])),
    )


def _rendered(emoji: list[openmoji.Emoji], style: openmoji.Style) -> list[Image.Image]:
    return [openmoji.render(one.key, style, IMAGE_SIZE) for one in emoji]


def _sample_rows(pipeline: StableDiffusionXLPipeline, prompts: list[str]) -> list[list[Image.Image]]:
    """One list of images per seed, in the prompts' order."""
    count = len(prompts)
    return [
        sample(
            pipeline,
            prompts,
            seeds=range(seed * count, (seed + 1) * count),
            size=IMAGE_SIZE,
            steps=STEPS,
            guidance=GUIDANCE,
        )
        for seed in SEEDS
    ]


def _draw(
    prompts: list[str], before: list[Image.Image], after: list[Image.Image], wanted: list[Image.Image], path: Path
) -> None:
    """Held-out prompts in columns, evenly picked; base, adapter and the wanted style in rows."""
    columns = np.linspace(0, len(prompts) - 1, SHOWN_COLUMNS).round().astype(int).tolist()
    left, top, bottom, gap = 118, 44, 26, 6
    size = (left + SHOWN_COLUMNS * (CELL + gap), top + 3 * (CELL + gap) + bottom)
    sheet = Image.new("RGB", size, "#f4f4f5")
    draw = ImageDraw.Draw(sheet)
    small, normal = ImageFont.load_default(11), ImageFont.load_default(14)
    rows = (("base", before), ("MaPO adapter", after), ("wanted style", wanted))
    for row, (label, images) in enumerate(rows):
        y = top + row * (CELL + gap)
        draw.text((10, y + CELL // 2 - 8), label, fill="#18181b", font=normal)
        for column, index in enumerate(columns):
            cell = images[index].resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (left + column * (CELL + gap), y))
    for column, index in enumerate(columns):
        name = prompts[index].removeprefix("an emoji of ")
        draw.text((left + column * (CELL + gap), top - 20), name, fill="#18181b", font=small)
    draw.text((left, 6), "Held-out prompts: no pair of these emoji was trained on", fill="#52525b", font=normal)
    draw.text((10, size[1] - 20), f"Same seeds in each column. {openmoji.ATTRIBUTION}", fill="#52525b", font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
