"""Recipes: one script a method, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainer.interrupt import StopRequest
from trainer.reporting import Phases
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.spec.methods import Method

Recipe = Callable[[Run, Path, Phases, StopRequest], Done]  # the path is the cache's


def recipe_for(method: Method) -> Recipe:
    """Imports torch, so to be called once the run is known to be sound."""
    match method.type:
        case "mapo":
            from trainer.recipes import mapo

            return mapo.train
