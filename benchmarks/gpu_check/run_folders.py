"""Random pairs, and run directories and sample requests on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PROMPTS = [f"a drawing of {thing}" for thing in ("a cat", "a dog", "a fish", "a tree", "a boat", "a cup", "a hat")]
PAIRS = 16
HELD_OUT = (5, 12)
BATCH = 8  # pairs of a step, the default
# In sizes of the base's square: two buckets of nearly the same area.
ASPECTS = ((1.0, 1.0), (0.75, 1.25))


def write_pairs(folder: Path, side: int) -> None:
    """Smooth random images of about ``side`` x ``side`` pixels, which compress well."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    lines = []
    for index in range(PAIRS):
        height, width = (int(share * side) for share in ASPECTS[index % 2])
        names = {kind: f"{index}-{kind}.png" for kind in ("chosen", "rejected")}
        for name in names.values():
            coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / name, compress_level=1)
        split = "validation" if index in HELD_OUT else "train"
        prompt = PROMPTS[index % len(PROMPTS)]
        lines.append(json.dumps({"id": f"pair-{index}", "prompt": prompt, "split": split, **names}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def base_of(family: str, base: Path) -> dict[str, Any]:
    return {"name": f"random-{family}", "family": family, "source": str(base)}


def write_run(
    directory: Path,
    pairs: Path,
    base: Mapping[str, Any],
    steps: int,
    hyperparameters: Mapping[str, Any],
    **options: Any,
) -> Path:
    """A MaPO run of ``steps`` steps with two checkpoints, otherwise by defaults; a preset needs no mismatch."""
    shutil.copytree(pairs, directory / "data")
    every = steps // 2
    spec = {
        "base": base,
        "method": {
            "type": "mapo",
            "mapo": {"hyperparameters": {"preset": "style", "max_steps": steps, **hyperparameters}},
        },
        "checkpoints": {"every_steps": every},
        "validation": {"draws": 1},
        "sampling": {"held_out": 0},
        **options,
    }
    (directory / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return directory


def write_sample_request(directory: Path, trained: Path, base: Mapping[str, Any], steps: int) -> Path:
    """One image from the adapter that ``trained`` has exported."""
    (directory / "adapter").mkdir(parents=True)
    adapter = "pytorch_lora_weights.safetensors"
    shutil.copy(trained / "output" / adapter, directory / "adapter" / adapter)
    given = json.loads((trained / "spec.json").read_text(encoding="utf-8")).get("adapter", {})
    request = {
        "base": base,
        "prompt": PROMPTS[0],
        "seed": 1,
        "steps": steps,
        "adapter": given,
        "weights": "export",
    }
    (directory / "draw.json").write_text(json.dumps(request), encoding="utf-8")
    return directory
