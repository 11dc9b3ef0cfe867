"""The worker: claim the next free trial, train it, score it and write the result, until none is left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from diffusers import StableDiffusionXLPipeline
from PIL import Image

from demo.emoji.domains import SUBJECT_PROMPT, Name, Split
from demo.emoji.openmoji import IMAGE_SIZE
from demo.emoji.scorers import Scorers, load_scorers
from demo.sampling import sample
from research.data import POSES, write_run
from research.plan import Scope, wanted
from research.trial import Result, Results, Trial
from research.trials.judging import GUIDANCE, Judged, judge, open_base
from trainer.program import train
from trainer.runtime.locks import file_lock
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, Metrics, Phase

BASE_STEPS = 25  # denoising steps of what the base draws for training
POLL_SECONDS = 2.0
ADAPTER = Path("output/pytorch_lora_weights.safetensors")

Rows = list[list[float]]


@dataclass
class Worker:
    """``home`` holds what can be made again: run directories, the cache, claims. Results and strips are kept."""

    base: Path
    home: Path
    results: Results
    scope: Scope
    base_judged: dict[tuple[Name, Split], Judged] = field(default_factory=dict)

    def work(self) -> None:
        while True:
            missing = [trial for trial in wanted(self.scope, self.results) if self.results.get(trial) is None]
            if not missing:
                return
            if not any(self.tried(trial) for trial in missing):
                time.sleep(POLL_SECONDS)  # others are at it; what they find may ask for more

    def tried(self, trial: Trial) -> bool:
        """Whether this worker did it just now; False if another one holds it."""
        with self.claimed(trial) as mine:
            if not mine or self.results.get(trial) is not None:
                return mine
            started = time.monotonic()
            result = self.run(trial)
            self.results.put(result)
            success = sum(map(sum, result.success)) / sum(map(len, result.success))
            print(f"{trial.key}: success {success:.2f}, {time.monotonic() - started:.0f} s", flush=True)
            return True

    @contextmanager
    def claimed(self, trial: Trial) -> Iterator[bool]:
        claims = self.home / "claims"
        claims.mkdir(parents=True, exist_ok=True)
        try:
            with file_lock(claims / trial.key, wait=False):
                yield True
        except BlockingIOError:
            yield False

    def run(self, trial: Trial) -> Result:
        folder = self.home / "runs" / trial.key
        shutil.rmtree(folder, ignore_errors=True)  # of an interrupted worker: half a minute of training at most
        write_run(folder, trial, self.base, self.drawn_by_base(trial))
        measured, seconds = trained(folder, self.home / "cache")
        self.pipeline.load_lora_weights(folder / ADAPTER)
        try:
            adapter = judge(self.pipeline, self.scorers, trial.domain, trial.split)
        finally:
            self.pipeline.unload_lora_weights()
        base = self.base_on(trial.domain, trial.split)
        self.keep_strip(trial, adapter.shown, base.shown)
        shutil.rmtree(folder)
        return Result(
            trial=trial,
            domain_score=rounded(adapter.domain_score.tolist()),
            fidelity=rounded(adapter.fidelity.tolist()),
            success=rounded(adapter.success.tolist()),
            base_domain_score=rounded(base.domain_score.tolist()),
            base_fidelity=rounded(base.fidelity.tolist()),
            base_success=rounded(base.success.tolist()),
            implicit_accuracy=(
                measured.implicit_accuracy,
                measured.implicit_accuracy_low,
                measured.implicit_accuracy_high,
            ),
            base_implicit_accuracy=measured.base_implicit_accuracy,
            chosen_loss=measured.chosen_loss,
            rejected_loss=measured.rejected_loss,
            base_chosen_loss=measured.base_chosen_loss,
            base_rejected_loss=measured.base_rejected_loss,
            seconds=round(seconds, 1),
        )

    @cached_property
    def pipeline(self) -> StableDiffusionXLPipeline:
        return open_base(self.base)

    @cached_property
    def scorers(self) -> Scorers:
        return load_scorers()

    def base_on(self, domain: Name, split: Split) -> Judged:
        """Before an adapter is loaded or after it was taken off: the same."""
        if (domain, split) not in self.base_judged:
            self.base_judged[domain, split] = judge(self.pipeline, self.scorers, domain, split)
        return self.base_judged[domain, split]

    def drawn_by_base(self, trial: Trial) -> dict[Split, Sequence[Image.Image]]:
        """For the new subject: what the base draws for its prompt, other noise for every pose."""
        if trial.domain != "personalization":
            return {}
        drawn: dict[Split, Sequence[Image.Image]] = {}
        splits: tuple[Split, ...] = ("train", trial.split)
        for split in splits:
            first = 1000 * (1 + list(POSES).index(split))
            count = len(POSES[split])
            drawn[split] = sample(
                self.pipeline,
                [SUBJECT_PROMPT] * count,
                seeds=range(first, first + count),
                size=IMAGE_SIZE,
                steps=BASE_STEPS,
                guidance=GUIDANCE,
            )
        return drawn

    def keep_strip(self, trial: Trial, samples: Sequence[Image.Image], base: Sequence[Image.Image]) -> None:
        """Some samples of a published trial, above the base's for the same prompts and seeds."""
        if trial.split != "test" or trial.pairs is not None:
            return
        strip = Image.new("RGB", (len(samples) * IMAGE_SIZE, 2 * IMAGE_SIZE))
        for column, (after, before) in enumerate(zip(samples, base, strict=True)):
            strip.paste(after, (column * IMAGE_SIZE, 0))
            strip.paste(before, (column * IMAGE_SIZE, IMAGE_SIZE))
        strips = self.home / "strips"
        strips.mkdir(parents=True, exist_ok=True)
        strip.save(strips / f"{trial.key}.png")


def trained(folder: Path, cache: Path) -> tuple[Metrics, float]:
    """The trainer's final figures and the seconds that its training phase took."""
    final: list[Metrics] = []
    training: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, Metrics) and event.final:
            final.append(event)
        if isinstance(event, Phase) and event.previous == "training":
            training.append(event.seconds)

    train(folder, cache, None, watch, StopRequest())
    return final[-1], sum(training)


def rounded(rows: Rows) -> Rows:
    return [[round(value, 3) for value in row] for row in rows]
