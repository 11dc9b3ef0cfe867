"""A run's dataset: which data a method requires, its pairs as files, and the same pairs encoded."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import torch

from trainer.data.batch_sampler import BatchSampler
from trainer.data.encoding import CachingEncoder, EncodedImage, EncodedPair
from trainer.run_directory.run import ImageFile, PairFiles, Run
from trainer.run_directory.split import select_by_hash
from trainer.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from trainer.runtime.signals import StopRequest
from trainer.spec.buckets import Bucket
from trainer.spec.events import DataPrepared


@dataclass(frozen=True)
class DataRequirements:
    """What a method needs: rejected images in training, class images under their prompt, the reference mismatch."""

    rejected: bool
    instance_prompt: str | None = None
    class_prompt: str | None = None
    class_images: int = 0
    mismatch: bool = False


@dataclass(frozen=True)
class DatasetFiles:
    """The dataset as image files: training pairs, the held-out pairs that are measured, and class images."""

    training: Sequence[PairFiles]
    held_out: Sequence[PairFiles]
    class_images: Sequence[ImageFile] = ()


@dataclass(frozen=True)
class EncodedDataset:
    """The dataset as keys of cache entries.

    ``visited`` are the ``training`` pairs that the run's steps take: only their entries are in the cache. ``held_out``
    pairs have both images, ``visited`` pairs where the method needs them.
    ``held_out_captions`` are the held-out pairs' captions from the first template. ``class_prompt_key`` is the prompt
    of ``class_images``.
    """

    training: Sequence[EncodedPair]
    visited: Sequence[EncodedPair]
    held_out: Sequence[EncodedPair]
    class_images: Sequence[EncodedImage] = ()
    class_prompt_key: str = ""
    held_out_captions: Sequence[str] = ()

    @property
    def held_out_weights(self) -> dict[str, float]:
        return {pair.id: pair.weight for pair in self.held_out}


def dataset_files_of(run: Run) -> DatasetFiles:
    return DatasetFiles(run.training, select_by_hash(run.validation, run.spec.validation.max_pairs))


def new_batch_sampler(training: Sequence[EncodedPair], run: Run, batch_size: int) -> BatchSampler[EncodedPair]:
    """``batch_size`` pairs share a forward pass; which pairs make up a step does not depend on it."""
    return BatchSampler(
        training,
        [pair.bucket for pair in training],
        seed=run.spec.seed,
        batch_size=batch_size,
        effective_batch_size=run.hyperparameters.effective_batch_size,
    )


def captions(pair: PairFiles, run: Run, requirements: DataRequirements) -> list[str]:
    prompt = requirements.instance_prompt or pair.prompt
    return [template.replace("{prompt}", prompt) for template in run.spec.data.caption_templates]


def all_prompts(
    files: DatasetFiles, run: Run, requirements: DataRequirements, training: Collection[str] | None = None
) -> list[str]:
    """All prompts of a run, those of its samples included; of training pairs those with the ids ``training``."""
    used = [pair for pair in files.training if training is None or pair.id in training]
    captioned = {caption for pair in (*used, *files.held_out) for caption in captions(pair, run, requirements)}
    return sorted(
        {
            "",
            *captioned,
            *run.spec.sampling.prompts,
            *([requirements.class_prompt] if requirements.class_prompt else []),
        }
    )


def with_mean_weight_one(pairs: Sequence[PairFiles]) -> list[PairFiles]:
    """Weights divided by their mean over the dataset, not over a batch: they then count at every batch size, one pair
    included, and weights twice as large for all change nothing."""
    if len({pair.weight for pair in pairs}) <= 1:
        return [replace(pair, weight=1.0) for pair in pairs]
    mean = math.fsum(pair.weight for pair in pairs) / len(pairs)
    return [replace(pair, weight=pair.weight / mean) for pair in pairs]


def plan_encoding(
    encoder: CachingEncoder, files: DatasetFiles, run: Run, requirements: DataRequirements
) -> EncodedDataset:
    """The buckets, and with them the steps, are the same before and after missing rejected images are sampled."""
    mirror = run.spec.data.horizontal_flip
    weighted, held_out = with_mean_weight_one(files.training), with_mean_weight_one(files.held_out)
    training = [encoder.pair(pair, captions(pair, run, requirements), may_mirror=mirror) for pair in weighted]
    return EncodedDataset(
        training,
        new_batch_sampler(training, run, 1).visited(run.hyperparameters.max_steps),
        [encoder.pair(pair, captions(pair, run, requirements)) for pair in held_out],
        [encoder.image(file, encoder.bucket(file)) for file in files.class_images],
        encoder.prompt_key(requirements.class_prompt or ""),
        [captions(pair, run, requirements)[0] for pair in files.held_out],
    )


def encode_dataset(
    encoder: CachingEncoder,
    files: DatasetFiles,
    run: Run,
    requirements: DataRequirements,
    *,
    device: torch.device,
    stop: StopRequest,
    progress: Callable[[int, int], None],
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> EncodedDataset:
    """Encode what the run's steps and evaluations read, where the files exist and the cache lacks it."""
    planned = plan_encoding(encoder, files, run, requirements)
    images = [image for pair in (*planned.visited, *planned.held_out) for image in pair.images]
    encoder.encode(
        all_prompts(files, run, requirements, {pair.id for pair in planned.visited}),
        [*images, *planned.class_images],
        device=device,
        stop=stop,
        progress=progress,
        process_group=process_group,
    )
    return planned


def dataset_report(data: EncodedDataset, sampled_images: int) -> DataPrepared:
    crops = [[image.crop for image in pair.images] for pair in data.training]
    return DataPrepared(
        training_pairs=len(data.training),
        validation_pairs=len(data.held_out),
        drawn_images=sampled_images,
        buckets=dict(Counter(_name(pair.bucket) for pair in data.training)),
        upscaled_pairs=sum(any(crop.is_upscaled for crop in pair) for pair in crops),
        largest_crop=max(crop.left_out for pair in crops for crop in pair),
    )


def _name(bucket: Bucket) -> str:
    return f"{bucket.width}x{bucket.height}"


def pick_diverse(prompts: Sequence[str], count: int) -> list[int]:
    """Indices of ``count`` pairs with as many different prompts as possible, chosen by hash and not by order.

    Where there are fewer pairs, they repeat.
    """
    by_hash = sorted(range(len(prompts)), key=lambda at: hashlib.sha256(f"{prompts[at]}\0{at}".encode()).digest())
    first: dict[str, int] = {}
    for at in by_hash:
        first.setdefault(prompts[at], at)
    leading = set(first.values())
    rest = [at for at in by_hash if at not in leading]
    return list(islice(cycle([*first.values(), *rest]), count))
