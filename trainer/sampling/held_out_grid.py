"""The held-out grid: samples of held-out prompts, the base's above the adapter's, from the same noise.

A run without requested samples makes one at its end, so that every adapter comes with sample images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from trainer.data.noise import keyed_seed
from trainer.data.pairs import pick_diverse
from trainer.sampling.grid import GridRow, grid
from trainer.sampling.sampler import Sampler, png_bytes
from trainer.spec.buckets import Bucket


@dataclass(frozen=True)
class HeldOutGrid:
    """Column ``i`` is ``prompts[i]`` from ``seeds[i]``."""

    prompts: Sequence[str]
    prompt_keys: Sequence[str]
    seeds: Sequence[int]
    size: Bucket

    def sample(
        self,
        sampler: Sampler,
        without_adapter: Callable[[], AbstractContextManager[None]],
        check: Callable[[], None],
        progress: Callable[[int, int], None],
    ) -> bytes:
        """A PNG."""
        columns = len(self.prompts)
        progress(0, 2 * columns)
        with without_adapter():
            base = sampler.sample(self.prompt_keys, seeds=self.seeds, size=self.size, check=check)
        progress(columns, 2 * columns)
        adapter = sampler.sample(self.prompt_keys, seeds=self.seeds, size=self.size, check=check)
        return png_bytes(grid(self.prompts, [GridRow("base", base), GridRow("this adapter", adapter)]))


def held_out_grid(
    captions: Sequence[str], prompt_key: Callable[[str], str], *, columns: int, size: Bucket, seed: int
) -> HeldOutGrid:
    """As many different captions as possible, chosen by hash; too few of them repeat, from other noise."""
    prompts = [captions[at] for at in pick_diverse(captions, columns)]
    seeds = [keyed_seed("sheet", seed, column) for column in range(columns)]
    return HeldOutGrid(prompts, [prompt_key(prompt) for prompt in prompts], seeds, size)
