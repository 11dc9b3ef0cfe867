"""The learning rate of each step."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, max_steps: int, kind: Literal["constant", "linear", "cosine"]
) -> float:
    """Of step 1 .. ``max_steps``: rising linearly to ``peak`` at ``warmup_steps``, then falling towards 0."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    progress = (step - 1 - warmup_steps) / max(1, max_steps - warmup_steps)
    match kind:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - progress)
        case "cosine":
            return peak * (1 + math.cos(math.pi * progress)) / 2
