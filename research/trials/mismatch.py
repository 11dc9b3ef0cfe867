"""Measure each domain's reference mismatch with the trainer, as for any job."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.emoji.domains import Name
from research.data import specification, write_run
from research.plan import usual_beta
from research.trial import Trial
from research.trials.work import Worker
from trainer.program import train
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, MismatchMeasured

SAMPLES = 48
FILE = "mismatch.json"


@dataclass(frozen=True)
class Measured:
    """Similarity of what the base draws to the chosen images; ``low`` and ``high`` are a 95% interval over pairs."""

    similarity: float
    low: float
    high: float
    images: int


def measure(worker: Worker) -> dict[Name, Measured]:
    """Of every domain in scope; what is in the results already is kept."""
    path = worker.results.folder / FILE
    known = read(worker.results.folder)
    for domain in worker.scope.domains:
        if domain not in known:
            known[domain] = measure_one(domain, worker)
            document = {name: asdict(measured) for name, measured in known.items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, path)
    return known


def measure_one(domain: Name, worker: Worker) -> Measured:
    trial = Trial(domain, "mapo", 1e-6, usual_beta(domain, "mapo"), 0, "validation")
    folder = worker.home / "runs" / f"mismatch-{domain}"
    shutil.rmtree(folder, ignore_errors=True)
    write_run(folder, trial, worker.base, worker.drawn_by_base(trial))
    spec = specification(trial, worker.base)
    spec["mismatch"] = {"samples": SAMPLES}
    spec["method"]["mapo"]["hyperparameters"]["max_steps"] = 1  # it is measured before the first step
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    found: list[MismatchMeasured] = []

    def watch(event: Event) -> None:
        if isinstance(event, MismatchMeasured):
            found.append(event)

    train(folder, worker.home / "cache", None, watch, StopRequest())
    shutil.rmtree(folder)
    (event,) = found
    return Measured(event.similarity, event.low, event.high, event.images)


def read(folder: Path) -> dict[Name, Measured]:
    path = folder / FILE
    if not path.is_file():
        return {}
    return {name: Measured(**one) for name, one in json.loads(path.read_text(encoding="utf-8")).items()}
