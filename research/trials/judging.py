"""Sample a split's prompts from the base and from an adapter, and score the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from PIL import Image

from demo.emoji import openmoji
from demo.emoji.domains import DOMAINS, SUBJECT_PROMPTS, Name, Split, emoji_of, telling
from demo.emoji.openmoji import IMAGE_SIZE
from demo.emoji.scorers import LABELS, Scorers
from demo.sampling import sample

SAMPLING_STEPS, GUIDANCE = 12, 3.0
SEEDS: dict[Split, int] = {"validation": 1, "test": 2}  # images of each prompt
SUBJECT_SEEDS: dict[Split, int] = {"validation": 8, "test": 4}  # there are few prompts that name it
# The first seed of the noise. One prompt for the subject is in every split, so that its noise must not be.
SUBJECT_NOISE: dict[Split, int] = {"validation": 0, "test": 10_000}
SHOWN = 10

Floats = NDArray[np.float64]
Each = TypeVar("Each")


@dataclass(frozen=True)
class Prompts:
    """``of_domain`` are drawn ``seeds`` times and scored for the domain; the others, each once, for fidelity alone.

    ``noise`` is the first seed of what they are drawn from.

    ``shown``: the places in the catalogue of what the prompts name, those of the domain or, for a new subject, of
    ``others``.
    """

    of_domain: tuple[str, ...]
    seeds: int
    noise: int
    others: tuple[str, ...]
    shown: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """(seeds, prompts) each, as ``trial.Result`` keeps them; ``shown`` are ten samples to look at."""

    domain_score: Floats
    fidelity: Floats
    success: Floats
    shown: tuple[Image.Image, ...]


def prompts_for(name: Name, split: Split) -> Prompts:
    catalogue = openmoji.catalogue()
    emoji = emoji_of(split) if name == "personalization" else telling(DOMAINS[name], split)
    captions = tuple(one.caption for one in emoji)
    indices = tuple(catalogue.index(one) for one in emoji)
    if name == "personalization":
        return Prompts(SUBJECT_PROMPTS[split], SUBJECT_SEEDS[split], SUBJECT_NOISE[split], captions, indices)
    return Prompts(captions, SEEDS[split], 0, (), indices)


def judge(pipeline: StableDiffusionXLPipeline, scorers: Scorers, name: Name, split: Split) -> Judged:
    """Draw with the pipeline as it is, base or adapter: the same prompts and seeds for everyone."""
    prompts = prompts_for(name, split)
    count, first = len(prompts.of_domain), prompts.noise
    samples = _sample(pipeline, prompts.of_domain * prompts.seeds, first)
    label = LABELS.index("subject" if name == "personalization" else DOMAINS[name].wanted)
    score = scorers.renditions(samples)[:, label].reshape(prompts.seeds, count)
    if prompts.others:
        others = _sample(pipeline, prompts.others, first)
        fidelity = (scorers.shown(others) == np.array(prompts.shown)).astype(np.float64)[None]
        return Judged(score, fidelity, score, (*samples[: SHOWN // 2], *_spread(others, SHOWN // 2)))
    fidelity = (
        (scorers.shown(samples) == np.array(prompts.shown * prompts.seeds)).astype(np.float64).reshape(score.shape)
    )
    return Judged(score, fidelity, score * fidelity, tuple(_spread(samples[:count], SHOWN)))


def shown_prompts(name: Name, split: Split) -> list[str]:
    """Of ``Judged.shown``, in its order."""
    prompts = prompts_for(name, split)
    if prompts.others:
        return [*prompts.of_domain[: SHOWN // 2], *_spread(prompts.others, SHOWN // 2)]
    return _spread(prompts.of_domain, SHOWN)


def _spread(every: Sequence[Each], count: int) -> list[Each]:
    return [every[index * len(every) // count] for index in range(count)]


def _sample(pipeline: StableDiffusionXLPipeline, prompts: Sequence[str], first: int) -> list[Image.Image]:
    seeds = range(first, first + len(prompts))
    return sample(pipeline, prompts, seeds=seeds, size=IMAGE_SIZE, steps=SAMPLING_STEPS, guidance=GUIDANCE)


def open_base(folder: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
