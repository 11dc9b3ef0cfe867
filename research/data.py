"""A trial's run directory: the pairs of its domain as PNG files, the manifest, and the specification of the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from demo.emoji import subject
from demo.emoji.domains import CLASS_PROMPT, DOMAINS, SUBJECT_PROMPT, Domain, Split, telling
from demo.emoji_xl import TARGETS
from research.trial import Trial

STEPS, BATCH, RANK = 120, 8, 16
DRAWS = 4  # timesteps that a held-out pair is scored on
CLASS_IMAGES = 24
POSES = {"train": subject.TRAINING, "validation": subject.VALIDATION, "test": subject.TEST}

Row = tuple[str, str, Image.Image, Image.Image]  # id, prompt, chosen, rejected


def write_run(folder: Path, trial: Trial, base: Path, drawn_by_base: dict[Split, Sequence[Image.Image]]) -> None:
    """``drawn_by_base``: the base's pictures for the subject's prompt, one a pose, of training and of the split."""
    images = folder / "data" / "images"
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for split in ("train", trial.split):
        for name, prompt, chosen, rejected in rows(trial, split, drawn_by_base):
            for side, image in (("chosen", chosen), ("rejected", rejected)):
                image.save(images / f"{name}-{side}.png")
            lines.append(
                {
                    "id": name,
                    "prompt": prompt,
                    "chosen": f"images/{name}-chosen.png",
                    "rejected": f"images/{name}-rejected.png",
                    "split": "train" if split == "train" else "validation",
                }
            )
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "data" / "manifest.jsonl").write_text(text, encoding="utf-8")
    (folder / "spec.json").write_text(json.dumps(specification(trial, base), indent=2), encoding="utf-8")


def rows(trial: Trial, split: Split, drawn_by_base: dict[Split, Sequence[Image.Image]]) -> list[Row]:
    if trial.domain == "personalization":
        return [
            (f"{split}-{index}", SUBJECT_PROMPT, subject.draw(pose), drawn)
            for index, (pose, drawn) in enumerate(zip(POSES[split], drawn_by_base[split], strict=True))
        ]
    domain = DOMAINS[trial.domain]
    every = _pairs(domain, split)
    if split == "train" and trial.pairs is not None:
        step = len(every) / trial.pairs
        return [every[int(index * step)] for index in range(trial.pairs)]  # spread over the catalogue
    return every


def _pairs(domain: Domain, split: Split) -> list[Row]:
    return [
        (emoji.key, emoji.caption, domain.chosen(emoji), domain.rejected(emoji)) for emoji in telling(domain, split)
    ]


def specification(trial: Trial, base: Path) -> dict[str, Any]:
    """The trainer's RunSpec; steps, batch, adapter and data are the same for every method."""
    return {
        "base": {"name": "emoji-xl", "family": "sdxl", "source": str(base)},
        "seed": trial.seed,
        "method": method(trial),
        "adapter": {"rank": RANK, "target_modules": list(TARGETS)},
        "validation": {"draws": DRAWS, "pairs_at_checkpoints": 2},
        # One evaluation, after the last step: nothing of the test pairs chooses a checkpoint.
        "checkpoints": {"every_steps": STEPS},
        "mismatch": {"samples": 0},
        "sampling": {"held_out": 0},  # the benchmark draws its own, of all prompts
    }


def method(trial: Trial) -> dict[str, Any]:
    hyperparameters: dict[str, Any] = {"max_steps": STEPS, "batch_size": BATCH, "learning_rate": trial.learning_rate}
    if trial.beta is not None:
        hyperparameters["beta"] = trial.beta
    if trial.method == "mapo-code":
        return {"type": "mapo", "mapo": {"hyperparameters": hyperparameters | {"form": "reference-code"}}}
    if trial.method == "dreambooth":
        hyperparameters |= {"class_prompt": CLASS_PROMPT, "class_images": CLASS_IMAGES}
    return {"type": trial.method, trial.method: {"hyperparameters": hyperparameters}}
