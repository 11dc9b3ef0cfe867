"""Training batches from the cache, one ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from trainer.cache import Cache
from trainer.encoding import EncodedPair
from trainer.noise import Draw, training_draw

Source = TypeVar("Source")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Batch:
    """Pairs of one shape. What a pair shares comes once; what its images have apart twice, all chosen first.

    Shapes: ``latents`` (2 pairs, channels, h, w), ``noise`` (pairs, channels, h, w), ``timesteps`` (pairs,) int64,
    ``prompt`` tensors (pairs, ...), ``size_ids`` (2 pairs, 6).
    """

    pairs: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt: Mapping[str, Tensor]
    size_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return Batch(
            self.pairs,
            moved(self.latents),
            moved(self.noise),
            moved(self.timesteps),
            {name: moved(tensor) for name, tensor in self.prompt.items()},
            moved(self.size_ids),
        )


def training_batch(
    pairs: Sequence[EncodedPair],
    cache: Cache,
    *,
    empty_prompt_key: str,
    seed: int,
    step: int,
    num_train_timesteps: int,
    prompt_dropout: float,
) -> Batch:
    """Latents sampled from the cached posterior, noise, timestep and prompt dropout as ``noise.training_draw`` says."""
    moments = [(cache.read(pair.chosen.key), cache.read(pair.rejected.key)) for pair in pairs]
    draw = partial(
        training_draw, seed=seed, step=step, num_train_timesteps=num_train_timesteps, prompt_dropout=prompt_dropout
    )
    draws = [draw(tuple(chosen["mean"].shape), pair=pair.id) for pair, (chosen, _) in zip(pairs, moments, strict=True)]
    sampled = [
        (_sample(chosen, drawn), _sample(rejected, drawn))
        for (chosen, rejected), drawn in zip(moments, draws, strict=True)
    ]
    return collate(
        pairs,
        latents=sampled,
        noise=[drawn.noise for drawn in draws],
        timesteps=[drawn.timestep for drawn in draws],
        prompts=[
            cache.read(empty_prompt_key if drawn.drop_prompt else pair.prompt_key)
            for pair, drawn in zip(pairs, draws, strict=True)
        ],
    )


def _sample(moments: Mapping[str, Tensor], drawn: Draw) -> Tensor:
    return torch.addcmul(moments["mean"], moments["std"], drawn.posterior)


def collate(
    pairs: Sequence[EncodedPair],
    *,
    latents: Sequence[tuple[Tensor, Tensor]],
    noise: Sequence[Tensor],
    timesteps: Sequence[int],
    prompts: Sequence[Mapping[str, Tensor]],
) -> Batch:
    """``latents`` are each pair's (chosen, rejected)."""
    images = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return Batch(
        pairs=tuple(pair.id for pair in pairs),
        latents=torch.stack([chosen for chosen, _ in latents] + [rejected for _, rejected in latents]),
        noise=torch.stack(list(noise)),
        timesteps=torch.tensor(timesteps),
        prompt={name: torch.stack([prompt[name] for prompt in prompts]) for name in prompts[0]},
        size_ids=torch.tensor([image.crop.size_ids for image in images], dtype=torch.float32),
    )


def one_ahead(load: Callable[[Source], Loaded], sources: Iterable[Source]) -> Iterator[Loaded]:
    """``map(load, sources)``, the next one loading in a thread while the caller works on this one."""
    remaining = iter(sources)
    with ThreadPoolExecutor(max_workers=1) as thread:
        first = next(remaining, None)
        if first is None:
            return
        pending = thread.submit(load, first)
        for source in remaining:
            loaded, pending = pending.result(), thread.submit(load, source)
            yield loaded
        yield pending.result()
