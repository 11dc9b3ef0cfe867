"""What every recipe needs before its loop: encoded data, the adapter on its base, and where an earlier call stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainer.cache import Cache
from trainer.checkpoint import Checkpoint, newest_checkpoint
from trainer.device import choose_device, free_memory
from trainer.encoding import EncodedImage, EncodedPair, Encoder, new_encoder
from trainer.families import open_family
from trainer.families.family import Family
from trainer.history import History
from trainer.interrupt import StopRequest
from trainer.learner import Learner, new_learner
from trainer.output import METRICS
from trainer.reporting import Phases
from trainer.rundir import PairFiles, Run
from trainer.spec.events import DataPrepared, Metrics, Started, Warned
from trainer.validation import HeldOutLosses, held_out_losses, selected
from trainer.world import ALONE, World

HELD_OUT_WARNINGS = {
    "pair": "All pairs have the same prompt: validation pairs share it with training.",
    "nothing": "There is one pair only: it is trained on and validated on.",
}

HELD_OUT_TOGETHER = 4  # pairs in a forward pass without gradient, which fits wherever a step does


@dataclass(frozen=True)
class Need:
    """What a method looks at: rejected images in training, and class images drawn from the base."""

    rejected: bool
    instance_prompt: str | None = None
    class_prompt: str | None = None
    class_images: int = 0


@dataclass(frozen=True)
class Encoded:
    """``held_out`` pairs have both images, ``training`` pairs where the method needs them. ``class_images`` come with
    the key of their prompt."""

    training: Sequence[EncodedPair]
    held_out: Sequence[EncodedPair]
    class_images: Sequence[EncodedImage] = ()
    class_prompt_key: str = ""


@dataclass(frozen=True)
class Ready:
    run: Run
    device: torch.device
    family: Family
    encoder: Encoder
    learner: Learner
    data: Encoded
    resumed: Checkpoint | None
    history: History
    phases: Phases
    stop: StopRequest
    world: World

    @property
    def cache(self) -> Cache:
        return self.encoder.cache

    def measure(self, pairs: Sequence[EncodedPair], batch_size: int) -> HeldOutLosses:
        """The network as it is now, on the fixed draws of these pairs."""
        return held_out_losses(
            self.learner.denoiser,
            pairs,
            self.cache,
            draws=self.run.spec.validation.draws,
            timestep_at=self.family.timestep_at,
            batch_size=batch_size,
            device=self.device,
            stop=self.stop,
            progress=self.phases.progress,
            world=self.world,
        )

    def note(self, measured: Metrics) -> None:
        self.phases.report(measured)
        self.history.append([{"kind": "validation", **measured.model_dump(exclude={"event"})}])


def prepare(run: Run, cache: Cache, need: Need, phases: Phases, stop: StopRequest, world: World) -> Ready:
    """Raises BadRun for data or a base that cannot be used, Interrupted where a stop was asked for."""
    spec, report = run.spec, phases.report
    device = choose_device()
    resumed = world.main_first(
        lambda: newest_checkpoint(
            run.directory / "checkpoints", run.digest, lambda code, text: report(Warned(code=code, message=text))
        )
    )
    family = open_family(spec.base)
    report(
        Started(
            hyperparameters=run.hyperparameters,
            training_pairs=len(run.training),
            validation_pairs=min(len(run.validation), spec.validation.max_pairs),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            resumed_from_step=resumed.step if resumed else 0,
        )
    )
    if run.held_out_by in HELD_OUT_WARNINGS:
        report(Warned(code="weak_validation", message=HELD_OUT_WARNINGS[run.held_out_by]))
    stop.check()

    phases.enter("caching")
    encoder = new_encoder(family, cache, spec.data.resolution)
    data = encode_pairs(encoder, run, need, device=device, stop=stop, progress=phases.progress, world=world)
    report(prepared(data, drawn=0))
    free_memory(device)
    stop.check()

    phases.enter("loading")
    learner = new_learner(family, spec, device, weight_decay=run.hyperparameters.weight_decay)
    if resumed:
        learner.load_weights(resumed.adapter)
        learner.load_optimizer_state(resumed.optimizer)
    history = History(run.directory / (METRICS if world.is_main else f".{METRICS}.process-{world.rank}"))
    history.restore(resumed.history if resumed else b"")
    return Ready(run, device, family, encoder, learner, data, resumed, history, phases, stop, world)


def encode_pairs(
    encoder: Encoder,
    run: Run,
    need: Need,
    *,
    device: torch.device,
    stop: StopRequest,
    progress: Callable[[int, int], None],
    world: World = ALONE,
) -> Encoded:
    validation = selected(run.validation, run.spec.validation.max_pairs)
    prompts = {"", *(caption for pair in (*run.training, *validation) for caption in captions(pair, run, need))}
    mirror = run.spec.data.horizontal_flip
    training = [encoder.pair(pair, captions(pair, run, need), may_mirror=mirror) for pair in run.training]
    held_out = [encoder.pair(pair, captions(pair, run, need)) for pair in validation]
    images = [image for pair in (*training, *held_out) for image in pair.images]
    encoder.encode(sorted(prompts), images, device=device, stop=stop, progress=progress, world=world)
    return Encoded(training, held_out)


def measure_base(ready: Ready) -> HeldOutLosses:
    """The held-out pairs before training; the best adapter is measured on the same draws at the end."""
    if ready.resumed:
        return ready.resumed.base
    ready.phases.enter("validating")
    with ready.learner.denoiser.without_adapter():
        return ready.measure(ready.data.held_out, HELD_OUT_TOGETHER)


def captions(pair: PairFiles, run: Run, need: Need) -> list[str]:
    prompt = need.instance_prompt or pair.prompt
    return [template.replace("{prompt}", prompt) for template in run.spec.data.caption_templates]


def prepared(data: Encoded, drawn: int) -> DataPrepared:
    images = [[image.crop for image in pair.images] for pair in data.training]
    return DataPrepared(
        training_pairs=len(data.training),
        validation_pairs=len(data.held_out),
        drawn_images=drawn,
        buckets=dict(Counter(f"{pair.bucket.width}x{pair.bucket.height}" for pair in data.training)),
        upscaled_pairs=sum(any(crop.is_upscaled for crop in crops) for crops in images),
        largest_crop=max(crop.left_out for crops in images for crop in crops),
    )
