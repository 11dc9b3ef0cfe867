"""A run's pairs as training sees them: with captions, encoded, and what they lack drawn from the base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trainer.drawing.commissions import Commission, carry_out
from trainer.drawing.sampler import Artist
from trainer.encoding import EncodedImage, EncodedPair, Encoder
from trainer.interrupt import StopRequest
from trainer.noise import keyed_seed
from trainer.rundir import ImageFile, PairFiles, Run, image_file
from trainer.spec.buckets import Bucket
from trainer.spec.events import DataPrepared
from trainer.validation import selected
from trainer.world import ALONE, World


@dataclass(frozen=True)
class Need:
    """What a method looks at: rejected images in training, class images under their prompt, the reference mismatch."""

    rejected: bool
    instance_prompt: str | None = None
    class_prompt: str | None = None
    class_images: int = 0
    mismatch: bool = False


@dataclass(frozen=True)
class Pairs:
    """Pairs and class images as files; ``held_out`` are those that validation measures."""

    training: Sequence[PairFiles]
    held_out: Sequence[PairFiles]
    class_images: Sequence[ImageFile] = ()


@dataclass(frozen=True)
class Encoded:
    """``held_out`` pairs have both images, ``training`` pairs where the method needs them.

    ``class_prompt_key`` is the prompt of ``class_images``.
    """

    training: Sequence[EncodedPair]
    held_out: Sequence[EncodedPair]
    class_images: Sequence[EncodedImage] = ()
    class_prompt_key: str = ""


def pairs_of(run: Run) -> Pairs:
    return Pairs(run.training, selected(run.validation, run.spec.validation.max_pairs))


def captions(pair: PairFiles, run: Run, need: Need) -> list[str]:
    prompt = need.instance_prompt or pair.prompt
    return [template.replace("{prompt}", prompt) for template in run.spec.data.caption_templates]


def prompts_of(pairs: Pairs, run: Run, need: Need) -> list[str]:
    """All that a run asks the text encoders, the prompts of its samples included."""
    captioned = {caption for pair in (*pairs.training, *pairs.held_out) for caption in captions(pair, run, need)}
    return sorted({"", *captioned, *run.spec.sampling.prompts, *([need.class_prompt] if need.class_prompt else [])})


def plan(encoder: Encoder, pairs: Pairs, run: Run, need: Need) -> Encoded:
    mirror = run.spec.data.horizontal_flip
    return Encoded(
        [encoder.pair(pair, captions(pair, run, need), may_mirror=mirror) for pair in pairs.training],
        [encoder.pair(pair, captions(pair, run, need)) for pair in pairs.held_out],
        [encoder.image(file, encoder.bucket(file)) for file in pairs.class_images],
        encoder.prompt_key(need.class_prompt or ""),
    )


def encode_pairs(
    encoder: Encoder,
    pairs: Pairs,
    run: Run,
    need: Need,
    *,
    device: torch.device,
    stop: StopRequest,
    progress: Callable[[int, int], None],
    world: World = ALONE,
) -> Encoded:
    """Everything that is there through the encoders, so far as the cache lacks it."""
    planned = plan(encoder, pairs, run, need)
    images = [image for pair in (*planned.training, *planned.held_out) for image in pair.images]
    encoder.encode(
        prompts_of(pairs, run, need),
        [*images, *planned.class_images],
        device=device,
        stop=stop,
        progress=progress,
        world=world,
    )
    return planned


def lacking(pairs: Pairs, run: Run, need: Need, encoder: Encoder) -> list[Commission]:
    """What is to be drawn: rejected images where they are looked at, then class images."""
    looked_at = (*(pairs.training if need.rejected else ()), *pairs.held_out)
    rejected = [_rejected(pair, run, need, encoder) for pair in dict.fromkeys(looked_at) if pair.rejected is None]
    native = encoder.native
    class_prompt = need.class_prompt or ""
    return rejected + [
        Commission(
            f"class image {index}",
            class_prompt,
            encoder.prompt_key(class_prompt),
            keyed_seed("class image", run.spec.seed, index),
            native,
        )
        for index in range(need.class_images)
    ]


def _rejected(pair: PairFiles, run: Run, need: Need, encoder: Encoder) -> Commission:
    prompt = captions(pair, run, need)[0]
    return Commission(
        f"rejected image of pair {pair.id}",
        prompt,
        encoder.prompt_key(prompt),
        keyed_seed("rejected image", run.spec.seed, pair.id),
        encoder.bucket(pair.chosen),
    )


def completed(
    pairs: Pairs,
    commissions: Sequence[Commission],
    run: Run,
    artist: Artist,
    *,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
    world: World,
) -> Pairs:
    """With what ``lacking`` named, drawn by the network as it is."""
    paths = carry_out(
        commissions,
        artist,
        run.directory,
        base=run.spec.base.name,
        revision=run.spec.base.revision or "",
        check=check,
        progress=progress,
        world=world,
    )
    drawn = {commission.purpose: path for commission, path in zip(commissions, paths, strict=True)}
    return Pairs(
        [_with_rejected(pair, drawn) for pair in pairs.training],
        [_with_rejected(pair, drawn) for pair in pairs.held_out],
        [image_file(path) for purpose, path in drawn.items() if purpose.startswith("class image ")],
    )


def _with_rejected(pair: PairFiles, drawn: dict[str, Path]) -> PairFiles:
    path = drawn.get(f"rejected image of pair {pair.id}")
    return pair if path is None else replace(pair, rejected=image_file(path))


def prepared(data: Encoded, drawn: int) -> DataPrepared:
    crops = [[image.crop for image in pair.images] for pair in data.training]
    return DataPrepared(
        training_pairs=len(data.training),
        validation_pairs=len(data.held_out),
        drawn_images=drawn,
        buckets=dict(Counter(_name(pair.bucket) for pair in data.training)),
        upscaled_pairs=sum(any(crop.is_upscaled for crop in pair) for pair in crops),
        largest_crop=max(crop.left_out for pair in crops for crop in pair),
    )


def _name(bucket: Bucket) -> str:
    return f"{bucket.width}x{bucket.height}"
