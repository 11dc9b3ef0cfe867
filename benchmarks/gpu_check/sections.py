"""The sections of the check, each a generator of checks: what runs, what it promises, and whether that held.

Each runs the trainer's own programs. A promise is broken where a program fails or a figure is over its limit; a check
that this machine cannot make, or that its section has no time for, is "not run".
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file

from benchmarks.gpu_check.programs import Trained, run_module, run_trainer
from benchmarks.gpu_check.report import Check
from benchmarks.gpu_check.run_folders import base_of, write_run, write_sample_request
from trainer.spec.events import CheckpointWritten, Done, Event, Started

GIB = 2**30
# GB of a card, and the GiB of it that torch can have: less the driver's and the context's share.
CARDS = {24: 22.5, 80: 78.5, 12: 11.0, 48: 44.0, 16: 14.7}
BOUNDED_CARDS = (24, 48, 80)
SD3_CARD = 16
# Kinds of device_errors.KINDS that any machine can provoke, and what the trainer must take each for.
HOST_ERRORS = {"host": "host"}
DEVICE_ERRORS = {
    "allocation": "device",
    "product": "device",
    "convolution": "device",
    "open": "device",
    "assertion": "program",
    "access": "fault",
}
ADAPTER = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Limits:
    """``reserved`` is a share of the card; ``step_by_bare`` and ``resumed_loss`` (relative) are ratios."""

    reserved: float = 0.9
    step_by_bare: float = 1.25
    resumed_loss: float = 0.01


@dataclass(frozen=True)
class Setting:
    """Where and on what the sections run. ``deadline`` is the current section's, a monotonic time."""

    folder: Path
    facts: Mapping[str, Any]
    limits: Limits
    tiny: bool
    steps: int
    deadline: float = math.inf
    finished: dict[str, Trained] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return bool(self.facts["device"] == "cuda")

    def base(self, family: str) -> Path:
        return self.folder / f"base-{family}"

    def train(
        self,
        name: str,
        family: str = "sdxl",
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        stop_at: Callable[[Event], bool] = lambda _: False,
        memory_bytes: int | None = None,
        launcher: tuple[str, ...] = (),
        **options: Any,
    ) -> Trained:
        """A run of its own directory ``name``, which goes on where the directory exists already."""
        directory = self.folder / name
        if not directory.exists():
            base = base_of(family, self.base(family))
            write_run(directory, self.folder / "pairs", base, self.steps, hyperparameters or {}, **options)
        return run_trainer(
            directory,
            self.folder / "cache",
            deadline=self.deadline,
            memory_bytes=memory_bytes,
            stop_at=stop_at,
            launcher=launcher,
        )

    def remove(self, name: str) -> None:
        """A run of SDXL leaves more than a gigabyte."""
        shutil.rmtree(self.folder / name, ignore_errors=True)


def verdict(section: str, name: str, promise: str, trained: Trained, broken: str = "", **measured: Any) -> Check:
    """Of a run: it must end well, whatever else it must do (``broken`` says what it did not)."""
    figures = trained.measured() | measured
    if trained.late:
        return Check(section, name, promise, "not run", figures, trained.end())
    why = broken if trained.done else trained.end()
    return Check(section, name, promise, "fail" if why else "pass", figures, why)


def not_run(section: str, name: str, promise: str, why: str) -> Check:
    return Check(section, name, promise, "not run", {}, why)


def make_base(setting: Setting, family: str) -> Check:
    section, promise = "Bases", "random weights of real size load as a base's do"
    folder = setting.base(family)
    size = ["--tiny"] if setting.tiny else []
    made = run_module("benchmarks.gpu_check.bases", family, str(folder), *size, deadline=setting.deadline)
    if made.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        return Check(section, family, promise, "not run" if made.late else "fail", {}, made.end())
    gib = made.result()["bytes"] / GIB
    return Check(section, family, promise, "pass", {"gib": gib, "seconds": round(made.seconds, 1)})


def bases(setting: Setting) -> Iterator[Check]:
    yield make_base(setting, "sdxl")


def memory(setting: Setting) -> Iterator[Check]:
    """A default job of SDXL on all of the device, then on parts of it as large as other cards."""
    section = "Memory"
    trained = setting.finished["default"] = setting.train("default")
    yield verdict(section, "the whole device", "a default job ends well", trained, changed_plan(trained))
    for card, usable in CARDS.items():
        name = f"a card of {card} GB"
        bounded = card in BOUNDED_CARDS
        promise = "a default job ends well, by the plan of its probe"
        promise += f", reserving <= {setting.limits.reserved:g} of the card" if bounded else ""
        if not setting.cuda:
            yield not_run(section, name, promise, "only CUDA's memory can be divided")
        elif setting.facts["memory_bytes"] < usable * GIB:
            yield not_run(section, name, promise, f"this GPU has {setting.facts['memory_bytes'] / GIB:.1f} GiB")
        else:
            trained = setting.train(f"card-{card}", memory_bytes=int(usable * GIB))
            setting.remove(f"card-{card}")
            broken = changed_plan(trained) or (over_limit(trained, card, setting.limits) if bounded else "")
            yield verdict(section, name, promise, trained, broken)


def changed_plan(trained: Trained) -> str:
    if "memory_plan_changed" in trained.warnings():
        return "memory ran out after the probe, and the run went on by another plan"
    return ""


def over_limit(trained: Trained, card: int, limits: Limits) -> str:
    reserved = trained.measured().get("reserved_gib", math.inf)
    return "" if reserved <= limits.reserved * card else f"reserved {reserved:.1f} GiB of {card}"


def step_time(setting: Setting) -> Iterator[Check]:
    section, cache = "Step", setting.folder / "cache"
    promise = f"a step takes <= {setting.limits.step_by_bare:g} of the bare network's passes, without LoRA"
    directory = setting.folder / "steps"
    base = base_of("sdxl", setting.base("sdxl"))
    write_run(directory, setting.folder / "pairs", base, 16, {}, checkpoints={"every_seconds": None})
    measured = run_module("benchmarks.gpu_check.steps", str(directory), str(cache), deadline=setting.deadline)
    setting.remove("steps")
    if measured.returncode != 0:
        outcome = "not run" if measured.late else "fail"
        yield Check(section, "time of a step", promise, outcome, {}, measured.end())  # type: ignore[arg-type]
        return
    found = measured.result()
    profile = {name: found.pop(name) for name in ("kernels_of_a_step", "idle_share")}
    ratio = found["step_by_bare"]
    if found["streamed"]:
        yield Check(section, "time of a step", promise, "not run", found, "streamed pairs pass the network twice")
    elif ratio > setting.limits.step_by_bare:
        yield Check(section, "time of a step", promise, "fail", found, f"the ratio is {ratio:.3f}")
    else:
        yield Check(section, "time of a step", promise, "pass", found)
    if setting.cuda:
        yield Check(section, "profile of three steps", "", "pass", profile)
    else:
        yield not_run(section, "profile of three steps", "", "only CUDA's kernels are counted")


def resume(setting: Setting) -> Iterator[Check]:
    """The default job again, stopped after its first checkpoint."""
    section, name = "Resume", "a stopped run goes on"
    promise = f"from its checkpoint, with the straight run's losses to {setting.limits.resumed_loss:.0%}"
    straight = setting.finished.get("default")
    if straight is None or not straight.done:
        yield not_run(section, name, promise, "the default job has not ended well")
        return
    stopped = setting.train("resumed", stop_at=lambda event: isinstance(event, CheckpointWritten))
    resumed = setting.train("resumed")
    first = next((event for _, event in resumed.events if isinstance(event, Started)), None)
    if stopped.late or resumed.late or not resumed.done or first is None:
        yield verdict(section, name, promise, stopped if stopped.late else resumed)
        return
    losses = [losses_of(setting.folder / run) for run in ("default", "resumed")]
    differences = relative_differences(*losses)
    same = same_adapter(*(setting.folder / run / "output" / ADAPTER for run in ("default", "resumed")))
    broken = ""
    if not 0 < first.resumed_from_step < setting.steps:
        broken = f"it went on from step {first.resumed_from_step} of {setting.steps}"
    elif max(differences) > setting.limits.resumed_loss:
        broken = f"losses differ by {max(differences):.2%}"
    setting.remove("resumed")
    yield verdict(
        section,
        name,
        promise,
        resumed,
        broken,
        resumed_from_step=first.resumed_from_step,
        largest_loss_difference=max(differences),
        adapter_equal_to_the_bit=same,
    )


def losses_of(directory: Path) -> list[float]:
    rows = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if row["kind"] == "train"]


def relative_differences(one: list[float], other: list[float]) -> list[float]:
    """Of losses, step by step; infinite where one has more steps."""
    if len(one) != len(other):
        return [math.inf]
    return [abs(a - b) / max(abs(a), 1e-9) for a, b in zip(one, other, strict=True)]


def same_adapter(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(tensor.equal(second[name]) for name, tensor in first.items())


def export(setting: Setting) -> Iterator[Check]:
    """The files of the default job, each loaded again by the trainer before it reported them."""
    section, name = "Export", "files of the default job"
    promise = "both files have the bytes that were verified, and finite numbers that are not all 0"
    trained = setting.finished.get("default")
    done = None if trained is None else next((e for _, e in trained.events if isinstance(e, Done)), None)
    if done is None:
        yield not_run(section, name, promise, "the default job has not ended well")
        return
    folder = setting.folder / "default" / "output"
    written = [file for file in done.files if file.endswith(".safetensors")]
    broken = [
        f"{file} is not what was verified" for file, digest in done.files.items() if digest != sha256(folder / file)
    ]
    broken += [f"{file}: {fault}" for file in written if (fault := fault_of(folder / file))]
    if len(written) < 2:
        broken.append(f"only {', '.join(written) or 'no file'} of two formats")
    yield Check(section, name, promise, "fail" if broken else "pass", {"files": ", ".join(written)}, "; ".join(broken))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fault_of(path: Path) -> str:
    tensors = load_file(path)
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        return "has numbers that are not finite"
    return "" if any(tensor.any() for tensor in tensors.values()) else "has nothing but 0"


def sd3(setting: Setting) -> Iterator[Check]:
    """Caching with T5, and a scale that is no power of two: rsLoRA's of rank 8."""
    section, promise = "SD3", "a job with rsLoRA of rank 8 is cached, trained and exported"
    made = make_base(setting, "sd3")
    yield made
    if made.outcome != "pass":
        yield not_run(section, "all", promise, "the random base of sd3 was not made")
        return
    usable = int(CARDS[SD3_CARD] * GIB)
    limited = setting.cuda and setting.facts["memory_bytes"] >= usable
    name = f"a card of {SD3_CARD} GB" if limited else "the whole device"
    adapter = {"type": "rslora", "rank": 8}
    trained = setting.train("sd3", "sd3", memory_bytes=usable if limited else None, adapter=adapter)
    setting.remove("sd3")
    yield verdict(section, name, promise, trained, changed_plan(trained))


def precision(setting: Setting) -> Iterator[Check]:
    section, promise = "Precision and optimizer", "a job ends well, its files verified in that precision"
    compute: dict[str, dict[str, Any]] = {
        name: {"base_precision": name} for name in ("int8", "nf4", "fp16", "bf16")
    } | {"adamw8bit": {"optimizer": "adamw8bit"}}
    yield from jobs(setting, section, promise, {name: ("sdxl", option) for name, option in compute.items()})


def compiled(setting: Setting) -> Iterator[Check]:
    """Last of the long ones: compilation takes most of its time."""
    options = {f"compile {family}": (family, {"compile": True}) for family in ("sdxl", "sd3")}
    yield from jobs(setting, "Compile", "a job with compute.compile ends well", options, refused="compile")


def jobs(
    setting: Setting,
    section: str,
    promise: str,
    options: Mapping[str, tuple[str, Mapping[str, Any]]],
    refused: str | None = None,
) -> Iterator[Check]:
    """A job for each of ``options``, a family with its compute options; what the trainer refuses here is not run."""
    for name, (family, compute) in options.items():
        reason = setting.facts["cannot"].get(refused or name)
        if reason is None and setting.facts["default_precision"] == DEFAULTS.get(name):
            reason = "it is the default here: the section Memory has run it"
        if reason is None and not setting.base(family).is_dir():
            reason = f"the random base of {family} was not made"
        if reason is None and time.monotonic() >= setting.deadline:
            reason = "the time for this section was over"
        if reason is not None:
            yield not_run(section, name, promise, reason)
            continue
        directory = f"job-{name.replace(' ', '-')}"
        trained = setting.train(directory, family, compute=compute)
        setting.remove(directory)
        yield verdict(section, name, promise, trained)


DEFAULTS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def generation(setting: Setting) -> Iterator[Check]:
    """An image of the base's own size from the default job's adapter."""
    section, name, promise = (
        "Generation",
        "an image from the exported adapter",
        "a PNG of the base's own size is written",
    )
    trained = setting.finished.get("default")
    if trained is None or not trained.done:
        yield not_run(section, name, promise, "the default job has not ended well")
        return
    directory, base = setting.folder / "generation", base_of("sdxl", setting.base("sdxl"))
    write_sample_request(directory, setting.folder / "default", base, steps=10)
    finished = run_module("trainer", "sample", str(directory), deadline=setting.deadline)
    figures: dict[str, Any] = {"seconds": round(finished.seconds, 1)}
    if finished.returncode != 0:
        said = finished.lines[-1][1].strip() if finished.lines else ""
        yield Check(section, name, promise, "not run" if finished.late else "fail", figures, f"{finished.end()} {said}")
        return
    reported = finished.result()
    with Image.open(directory / "images" / "0.png") as image:
        image.load()
        broken = "" if image.size == (reported["width"], reported["height"]) else f"the image is {image.size}"
    yield Check(section, name, promise, "fail" if broken else "pass", figures, broken)


def device_errors(setting: Setting) -> Iterator[Check]:
    section = "Device errors"
    for kind, expected in (HOST_ERRORS | DEVICE_ERRORS).items():
        promise = f"is taken for {MEANINGS[expected]}"
        if kind in DEVICE_ERRORS and not setting.cuda:
            yield not_run(section, kind, promise, "it needs a CUDA GPU")
            continue
        finished = run_module("benchmarks.gpu_check.device_errors", "provoke", kind, deadline=setting.deadline)
        if not finished.lines:
            yield not_run(section, kind, promise, finished.end())
            continue
        found = finished.result()  # a fault of the device may end the process badly after its report
        if found["text"] is None:
            yield not_run(section, kind, promise, "no error could be provoked")
            continue
        broken = "" if found["taken_for"] == expected else f"it was taken for {MEANINGS[found['taken_for']]}"
        yield Check(section, kind, promise, "fail" if broken else "pass", found, broken)


MEANINGS = {
    "host": "a lack of main memory",
    "device": "a lack of GPU memory",
    "fault": "a fault of the device: another attempt goes on from the checkpoint",
    "program": "a fault of the program: no other attempt is made",
}


def two_gpus(setting: Setting) -> Iterator[Check]:
    section, name = "Several GPUs", "one run in two processes"
    promise = "it ends well, and each process has memory on its own GPU alone"
    if setting.facts["gpus"] < 2:
        yield not_run(section, name, promise, f"it needs two GPUs, and there are {setting.facts['gpus']}")
        return
    options = {"num_processes": "2", "num_machines": "1", "mixed_precision": "no", "dynamo_backend": "no"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0", *words)
    trained = setting.train("two-gpus", launcher=launcher)
    setting.remove("two-gpus")
    yield verdict(section, name, promise, trained, on_other_gpus(trained.peaks))


def on_other_gpus(peaks: list[list[dict[str, Any]]]) -> str:
    """What is wrong with the devices of processes, by their ranks."""
    for rank, found in enumerate(peaks):
        used = {peak["device"] for peak in found if peak["reserved"] > 0}
        if used != {rank}:
            return f"process {rank} had memory on the GPUs {sorted(used)}"
    return "" if len(peaks) == 2 else f"{len(peaks)} of two processes reported their memory"
