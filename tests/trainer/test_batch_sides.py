"""Which image of a pair stands where in a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.cache.cache import Cache
from trainer.data.batches import Batches, collate
from trainer.data.encoding import EncodedImage, EncodedPair
from trainer.run_directory.run import ImageFile
from trainer.spec.buckets import Bucket, centre_crop

pytestmark = pytest.mark.unit

BUCKET = Bucket(8, 8)
CHOSEN, REJECTED = 1.0, -1.0  # of every latent
NAMES = ("a", "b")


def image(name: str, size: tuple[int, int]) -> EncodedImage:
    return EncodedImage(name, ImageFile(Path(name), name, size), centre_crop(size, BUCKET))


def pair(name: str) -> EncodedPair:
    """The rejected image has another size, and so other size ids."""
    return EncodedPair(
        name, BUCKET, ("prompt",), (image(f"{name}-chosen", (8, 8)), image(f"{name}-rejected", (16, 16)))
    )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Two pairs whose latents tell the side by their sign and the pair by their size."""
    filled = Cache(tmp_path)
    for number, name in enumerate(NAMES, start=1):
        for side, value in (("chosen", CHOSEN), ("rejected", REJECTED)):
            mean = torch.full((4, 2, 2), number * value)
            filled.write(f"{name}-{side}", {"mean": mean, "std": torch.zeros_like(mean)})
    filled.write("prompt", {"hidden": torch.zeros(1)})
    return filled


def batches(cache: Cache, sides: int) -> Batches:
    return Batches(
        cache, seed=0, sides=sides, timestep_at=lambda share: share, prompt_dropout=0.0, empty_prompt_key="prompt"
    )


def test_the_chosen_images_of_all_pairs_come_first() -> None:
    images = [pair(name).images for name in NAMES]
    latents = [[torch.full((4, 2, 2), number * side) for side in (CHOSEN, REJECTED)] for number in (1, 2)]
    batch = collate(
        NAMES,
        images=images,
        latents=latents,
        noise=[torch.zeros(4, 2, 2)] * 2,
        timesteps=[0.0, 0.0],
        prompts=[{"hidden": torch.zeros(1)}] * 2,
    )
    assert batch.sides == 2
    assert batch.latents[:, 0, 0, 0].tolist() == [1, 2, -1, -2]
    assert batch.size_ids[:, 0].tolist() == [8, 8, 8, 8]  # the chosen images', of both


def test_side_0_is_the_chosen_images_and_side_1_the_rejected(cache: Cache) -> None:
    batch = batches(cache, sides=2).batch([pair(name) for name in NAMES], step=1)
    chosen, rejected = batch.side(0), batch.side(1)
    assert (chosen.sides, rejected.sides) == (1, 1)
    assert chosen.latents[:, 0, 0, 0].tolist() == [1, 2]
    assert rejected.latents[:, 0, 0, 0].tolist() == [-1, -2]
    assert chosen.size_ids[:, 0].tolist() == [8, 8]
    assert rejected.size_ids[:, 0].tolist() == [8, 8]
    assert torch.equal(chosen.noise, rejected.noise)


def test_a_one_sided_batch_is_of_the_chosen_images(cache: Cache) -> None:
    batch = batches(cache, sides=1).batch([pair(name) for name in NAMES], step=1)
    assert batch.latents[:, 0, 0, 0].tolist() == [1, 2]


def test_a_mirrored_pair_keeps_its_sides(cache: Cache) -> None:
    for name in NAMES:
        for side, value in (("chosen", 10.0), ("rejected", -10.0)):
            cache.write(f"{name}-{side}-mirror", {"mean": torch.full((4, 2, 2), value), "std": torch.zeros(4, 2, 2)})
    mirrored = [
        replace(
            one,
            images=tuple(
                replace(side, mirror=replace(side, key=f"{side.key}-mirror", mirrored=True)) for side in one.images
            ),
        )
        for one in map(pair, NAMES)
    ]
    seen = torch.cat([batches(cache, sides=2).batch(mirrored, step).latents[:, 0, 0, 0] for step in range(8)])
    chosen, rejected = seen.view(8, 2, 2).unbind(1)
    assert set(chosen.flatten().tolist()) == {1, 2, 10}
    assert set(rejected.flatten().tolist()) == {-1, -2, -10}
