"""Base against adapter on held-out prompts: the same prompts and seeds, sampled by a plain diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionXLPipeline
from PIL import Image, ImageDraw, ImageFont

from demo.emoji import openmoji
from demo.emoji.openmoji import IMAGE_SIZE
from demo.emoji.scorers import LABELS, load_scorers
from demo.sampling import sample
from demo.win_rate import WinRate, win_rate

STEPS = 20
GUIDANCE = 3.0
SEEDS = (0, 1)
SHOWN_COLUMNS = 10
CELL = 112

Rows = list[list[Image.Image]]  # of samples: one list per seed, in the prompts' order


@dataclass(frozen=True)
class Comparison:
    """By the benchmark's judges. ``fidelity``: how often a sample is taken for what its prompt names, of all emoji."""

    win_rate: WinRate
    scorer_accuracy: float
    base_score: float
    adapter_score: float
    base_fidelity: float
    adapter_fidelity: float
    seeds: int  # of each prompt


def compare(base: Path, adapter: Path, path: Path) -> Comparison:
    """Sample both, write the picture, and score them."""
    catalogue = openmoji.catalogue()
    held_out = [emoji for emoji in catalogue if emoji.held_out]
    pipeline = StableDiffusionXLPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [emoji.caption for emoji in held_out]
    before = _sample_rows(pipeline, prompts)
    pipeline.load_lora_weights(adapter)
    after = _sample_rows(pipeline, prompts)
    _draw(prompts, before[0], after[0], [openmoji.render(one.key, "line", IMAGE_SIZE) for one in held_out], path)

    return scored(before, after, indices=[catalogue.index(emoji) for emoji in held_out])


def scored(before: Rows, after: Rows, *, indices: Sequence[int]) -> Comparison:
    """``before``: samples of the base, ``after``: of the adapter; ``indices``: each prompt's emoji in the catalogue."""
    scorers, line_art = load_scorers(), LABELS.index("line")
    base_scores, adapter_scores = (  # (prompts, seeds)
        np.stack([scorers.renditions(images)[:, line_art] for images in rows], axis=1) for rows in (before, after)
    )
    base_fidelity, adapter_fidelity = (
        float(np.mean([scorers.shown(images) == np.array(indices) for images in rows])) for rows in (before, after)
    )
    return Comparison(
        win_rate=win_rate(adapter_scores, base_scores),
        scorer_accuracy=scorers.accuracies.rendition.share,
        base_score=float(base_scores.mean()),
        adapter_score=float(adapter_scores.mean()),
        base_fidelity=base_fidelity,
        adapter_fidelity=adapter_fidelity,
        seeds=len(before),
    )


def _sample_rows(pipeline: StableDiffusionXLPipeline, prompts: list[str]) -> Rows:
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
    canvas = Image.new("RGB", size, "#f4f4f5")
    draw = ImageDraw.Draw(canvas)
    small, normal = ImageFont.load_default(11), ImageFont.load_default(14)
    rows = (("base", before), ("MaPO adapter", after), ("wanted style", wanted))
    for row, (label, images) in enumerate(rows):
        y = top + row * (CELL + gap)
        draw.text((10, y + CELL // 2 - 8), label, fill="#18181b", font=normal)
        for column, index in enumerate(columns):
            cell = images[index].resize((CELL, CELL), Image.Resampling.LANCZOS)
            canvas.paste(cell, (left + column * (CELL + gap), y))
    for column, index in enumerate(columns):
        name = prompts[index].removeprefix("an emoji of ")
        draw.text((left + column * (CELL + gap), top - 20), name, fill="#18181b", font=small)
    draw.text((left, 6), "Held-out prompts: no pair of these emoji was trained on", fill="#52525b", font=normal)
    draw.text((10, size[1] - 20), f"Same seeds in each column. {openmoji.ATTRIBUTION}", fill="#52525b", font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
