"""The result's own samples: held-out prompts, the base's images above the adapter's, from the same noise.

Sampled at the end of every run that was asked for no other samples, so that no adapter comes without a picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from trainer.data.noise import keyed_seed
from trainer.data.pairs import pick_diverse
from trainer.sampling.grid import GridRow, grid
from trainer.sampling.sampler import Sampler
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
        content = io.BytesIO()
        grid(self.prompts, [GridRow("base", base), GridRow("this adapter", adapter)]).save(content, "PNG")
        return content.getvalue()


def held_out_grid(
    captions: Sequence[str], prompt_key: Callable[[str], str], *, columns: int, size: Bucket, seed: int
) -> HeldOutGrid:
    """As many different captions as there are, chosen by hash; where there are fewer than ``columns``, they come again
    from other noise."""
    prompts = [captions[at] for at in pick_diverse(captions, columns)]
    seeds = [keyed_seed("sheet", seed, column) for column in range(columns)]
    return HeldOutGrid(prompts, [prompt_key(prompt) for prompt in prompts], seeds, size)
