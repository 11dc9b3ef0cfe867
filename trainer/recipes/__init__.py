"""Recipes: one script a method, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from trainer.interrupt import StopRequest
from trainer.reporting import Phases
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.spec.methods import Method

if TYPE_CHECKING:
    from trainer.cache import Cache
    from trainer.world import World

Recipe = Callable[[Run, "Cache", Phases, StopRequest, "World"], Done]


def recipe_for(method: Method) -> Recipe:
    """Imports torch, so to be called once the run is known to be sound."""
    recipe: Recipe = import_module(f"trainer.recipes.{method.type}").train
    return recipe
