"""The recipe's training step (cached inputs) against a bare forward and backward of the same UNet on ready tensors.

    python -m benchmarks.trainer_step

Both run in turns in one process, on emoji-xl with a batch of 8 pairs; the figure is the median ratio of a step to the
bare pass just before it, and must be at most 1.05. Its quartiles show how much else the machine was doing. Without
``demo/base/emoji-xl`` the same architecture runs with random weights.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from demo import emoji_xl, openmoji
from trainer.batches import Batch
from trainer.cache import Cache
from trainer.device import choose_device
from trainer.encoding import encode
from trainer.families import open_family
from trainer.history import History
from trainer.interrupt import StopRequest
from trainer.learner import Learner, new_learner
from trainer.progress import ProgressLine
from trainer.recipes.mapo import objective_of, step_loader
from trainer.rundir import Run, read_run
from trainer.step import training_step

BASE = Path("demo/base/emoji-xl")
RESULT = Path("benchmarks/results/trainer_step.json")
PAIRS, STEPS, WARMUP, MUST_REACH = 64, 24, 3, 1.05


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = BASE if BASE.is_dir() else random_base(folder / "base")
        run = emoji_run(folder / "run", base)
        device = choose_device()
        family = open_family(run.spec.base)
        cache = Cache(folder / "cache")
        encoding = encode(
            family, cache, run.training, run.validation, device=device, stop=StopRequest(), progress=lambda *_: None
        )
        asked = run.hyperparameters
        learner = new_learner(family, run.spec, device, weight_decay=asked.weight_decay)
        load = step_loader(encoding, cache, asked, run.spec.seed, family.num_train_timesteps, device)
        line = ProgressLine(lambda _: None, History(folder / "metrics.jsonl"), device, asked.max_steps)
        recipe = recipe_step(run, learner, load(1), line, family.num_train_timesteps)
        bare = bare_step(learner, next(load(1))[0])
        seconds = in_turns({"bare": bare, "step": recipe}, device)
    ratios = [step / bare for step, bare in zip(seconds["step"], seconds["bare"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    result = {
        "figure": "training step / bare forward+backward",
        "ratio": round(ratio, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "must_reach": MUST_REACH,
        "step_seconds": round(statistics.median(seconds["step"]), 4),
        "bare_seconds": round(statistics.median(seconds["bare"]), 4),
        "base": "demo/base/emoji-xl" if base == BASE else "emoji-xl, random weights",
        "batch_pairs": asked.batch_size,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    assert ratio <= MUST_REACH, f"{ratio:.3f} > {MUST_REACH}"


def random_base(folder: Path) -> Path:
    tokenizer = emoji_xl.new_tokenizer(emoji.caption for emoji in openmoji.catalogue())
    pipeline = emoji_xl.assemble(
        emoji_xl.new_vae(), emoji_xl.new_unet(), emoji_xl.new_text_encoders(tokenizer), tokenizer
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def emoji_run(folder: Path, base: Path) -> Run:
    """Line art preferred to colour, as in the bundled example."""
    data = folder / "data"
    data.mkdir(parents=True)
    lines = []
    for emoji in openmoji.catalogue()[:PAIRS]:
        names = {"chosen": f"{emoji.key}-line.png", "rejected": f"{emoji.key}-color.png"}
        openmoji.render(emoji.key, "line", emoji_xl.IMAGE_SIZE).save(data / names["chosen"])
        openmoji.render(emoji.key, "color", emoji_xl.IMAGE_SIZE).save(data / names["rejected"])
        lines.append(json.dumps({"id": emoji.key, "prompt": emoji.caption, "split": "train", **names}))
    (data / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    hyperparameters = {"batch_size": 8, "max_steps": 10 * STEPS}
    spec = {
        "base": {"name": "emoji-xl", "family": "sdxl", "source": str(base)},
        "method": {"type": "mapo", "mapo": {"hyperparameters": hyperparameters}},
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return read_run(folder)


def recipe_step(
    run: Run, learner: Learner, batches: Iterator[list[Batch]], line: ProgressLine, num_train_timesteps: int
) -> Callable[[], None]:
    """What the recipe does a step: load, losses, objective, backward, clip, update, and its progress line when due."""
    objective = objective_of(run.hyperparameters, num_train_timesteps)

    def step() -> None:
        line.add(
            training_step(
                learner.denoiser,
                learner.optimizer,
                next(batches),
                objective,
                step=1,
                learning_rate=1e-6,
                max_grad_norm=1.0,
            )
        )
        if line.due():
            line.flush(last_good_step=0)

    return step


def bare_step(learner: Learner, batch: Batch) -> Callable[[], None]:
    """The network alone, its adapter included, on inputs made beforehand."""
    denoiser = learner.denoiser
    noise, timesteps = batch.noise.repeat(2, 1, 1, 1), batch.timesteps.repeat(2)
    noisy = denoiser.add_noise(batch.latents, noise, timesteps)
    prompt = {name: torch.cat([tensor, tensor]) for name, tensor in batch.prompt.items()}

    def step() -> None:
        F.mse_loss(denoiser.predict(noisy, timesteps, prompt, batch.size_ids), noise).backward()  # type: ignore[no-untyped-call]
        learner.optimizer.zero_grad(set_to_none=True)

    return step


def in_turns(steps: dict[str, Callable[[], None]], device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, measured alternately so that other load on the machine meets both alike."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARMUP + STEPS):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: times[WARMUP:] for name, times in seconds.items()}


if __name__ == "__main__":
    main()
