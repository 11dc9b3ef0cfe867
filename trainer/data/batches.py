"""Training batches from the cache, prefetched one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from trainer.cache.cache import Cache, Tensors
from trainer.data.encoding import EncodedImage, EncodedPair
from trainer.data.noise import Draw, keyed_generator, training_draw
from trainer.runtime.device import use_in_this_thread

Input = TypeVar("Input")
Output = TypeVar("Output")


@dataclass(frozen=True)
class Batch:
    """Pairs of one shape. What a pair shares comes once; what its images have apart once a side, all chosen first.

    Shapes: ``latents`` (sides * pairs, channels, h, w), ``noise`` (pairs, channels, h, w), ``timesteps`` (pairs,)
    fp32, ``prompt`` tensors (pairs, ...), ``size_ids`` (sides * pairs, 6). ``prior`` is a one-sided batch of as many
    class images, of another shape perhaps. ``weights`` (pairs,) multiply the pairs' losses; without them all are 1.
    """

    pairs: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt: Mapping[str, Tensor]
    size_ids: Tensor
    prior: Batch | None = None
    weights: Tensor | None = None

    @property
    def sides(self) -> int:
        return len(self.latents) // len(self.pairs)

    def side(self, index: int) -> Batch:
        """0: the chosen images alone, 1: the rejected."""
        part = slice(index * len(self.pairs), (index + 1) * len(self.pairs))
        return replace(self, latents=self.latents[part], size_ids=self.size_ids[part], prior=None)

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
            self.prior.to(device) if self.prior else None,
            moved(self.weights) if self.weights is not None else None,
        )


@dataclass(frozen=True)
class Batches:
    """Makes training batches: ``noise.training_draw`` decides all that is random about them.

    ``sides`` is 1 where rejected images are not used. ``class_images``, if any, give each pair one of them at
    random as its prior, with ``class_prompt_key`` as prompt.
    """

    cache: Cache
    seed: int
    sides: int
    timestep_at: Callable[[float], float]
    prompt_dropout: float
    empty_prompt_key: str
    class_images: Sequence[EncodedImage] = ()
    class_prompt_key: str = ""

    def batch(self, pairs: Sequence[EncodedPair], step: int) -> Batch:
        draws = [self._draw(self._shape(pair.images[0].key), pair.id, step) for pair in pairs]
        images = [
            [image.mirror if draw.mirror and image.mirror else image for image in pair.images[: self.sides]]
            for pair, draw in zip(pairs, draws, strict=True)
        ]
        batch = collate(
            [pair.id for pair in pairs],
            images=images,
            latents=[[self._sample(i, draw) for i in one] for one, draw in zip(images, draws, strict=True)],
            noise=[draw.noise for draw in draws],
            timesteps=[self.timestep_at(draw.share) for draw in draws],
            prompts=[self._prompt(pair.prompt_keys, draw) for pair, draw in zip(pairs, draws, strict=True)],
        )
        batch = replace(batch, weights=torch.tensor([pair.weight for pair in pairs], dtype=torch.float32))
        return replace(batch, prior=self._prior(pairs, step)) if self.class_images else batch

    def _prior(self, pairs: Sequence[EncodedPair], step: int) -> Batch:
        """Prompt dropout leaves the class prompt alone: with no prompt there is no class to preserve."""
        names = [f"class image of {pair.id}" for pair in pairs]
        images = [self._class_image(name, step) for name in names]
        draws = [self._draw(self._shape(i.key), name, step) for i, name in zip(images, names, strict=True)]
        prompt = self.cache.read(self.class_prompt_key)
        return collate(
            names,
            images=[[image] for image in images],
            latents=[[self._sample(i, draw)] for i, draw in zip(images, draws, strict=True)],
            noise=[draw.noise for draw in draws],
            timesteps=[self.timestep_at(draw.share) for draw in draws],
            prompts=[prompt] * len(images),
        )

    def _class_image(self, name: str, step: int) -> EncodedImage:
        generator = keyed_generator("class image", self.seed, name, step)
        return self.class_images[int(torch.randint(len(self.class_images), (), generator=generator))]

    def _draw(self, shape: tuple[int, ...], name: str, step: int) -> Draw:
        return training_draw(shape, seed=self.seed, pair=name, step=step, prompt_dropout=self.prompt_dropout)

    def _shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.cache.read(key)["mean"].shape)

    def _sample(self, image: EncodedImage, draw: Draw) -> Tensor:
        moments = self.cache.read(image.key)
        return torch.addcmul(moments["mean"].float(), moments["std"].float(), draw.posterior)

    def _prompt(self, keys: Sequence[str], draw: Draw) -> Tensors:
        return self.cache.read(self.empty_prompt_key if draw.drop_prompt else keys[int(draw.caption * len(keys))])


def collate(
    names: Sequence[str],
    *,
    images: Sequence[Sequence[EncodedImage]],
    latents: Sequence[Sequence[Tensor]],
    noise: Sequence[Tensor],
    timesteps: Sequence[float],
    prompts: Sequence[Mapping[str, Tensor]],
) -> Batch:
    """``images`` and ``latents`` are each pair's, by side.

    Both images have the chosen one's sizes, as in the authors' scripts of MaPO and Diffusion-DPO: the network could
    tell the sides apart by sizes of their own.
    """
    sides = len(images[0])
    return Batch(
        pairs=tuple(names),
        latents=torch.stack([latent for side in zip(*latents, strict=True) for latent in side]),
        noise=torch.stack(list(noise)),
        timesteps=torch.tensor(timesteps, dtype=torch.float32),
        prompt={name: torch.stack([prompt[name] for prompt in prompts]) for name in prompts[0]},
        size_ids=torch.tensor([image.crop.size_ids for image, *_ in images] * sides, dtype=torch.float32),
    )


def prefetch(load: Callable[[Input], Output], sources: Iterable[Input], device: torch.device) -> Iterator[Output]:
    """``map(load, sources)``, the next one loading onto ``device`` in a thread while the caller works on this one."""
    remaining = iter(sources)
    with ThreadPoolExecutor(max_workers=1, initializer=partial(use_in_this_thread, device)) as thread:
        first = next(remaining, None)
        if first is None:
            return
        pending = thread.submit(load, first)
        for source in remaining:
            loaded, pending = pending.result(), thread.submit(load, source)
            yield loaded
        yield pending.result()
