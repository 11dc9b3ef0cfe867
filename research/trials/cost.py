"""Measure each method's cost: step time and peak memory, each run in its own process, in turns.

Turns, so that whatever else the machine does meets all methods alike; ratios are taken within a turn.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.emoji.domains import Name
from research.data import specification, write_run
from research.plan import LEARNING_RATES, usual_beta
from research.trial import METHODS, MethodName, Trial
from research.trials.work import Worker

TURNS, STEPS = 5, 24
REFERENCE: MethodName = "dpo"  # the paper compares with Diffusion-DPO
DOMAIN: Name = "personalization"  # the one that all methods train on
FILE = "cost.json"


@dataclass(frozen=True)
class Cost:
    """``seconds`` a step of 8 pairs and ``peak_bytes`` of the process are medians; ratios are to Diffusion-DPO."""

    seconds: float
    time_ratio: float
    time_ratio_low: float
    time_ratio_high: float
    peak_bytes: int
    memory_ratio: float


def measure(worker: Worker, methods: tuple[MethodName, ...] = METHODS) -> dict[MethodName, Cost]:
    """Written to the results; quartiles are those of the turns."""
    turns = [{method: one_run(worker, method) for method in methods} for _ in range(TURNS)]
    costs: dict[MethodName, Cost] = {}
    for method in methods:
        times = [turn[method][0] / turn[REFERENCE][0] for turn in turns]
        low, _, high = statistics.quantiles(times, n=4)
        costs[method] = Cost(
            seconds=statistics.median(turn[method][0] for turn in turns),
            time_ratio=statistics.median(times),
            time_ratio_low=low,
            time_ratio_high=high,
            peak_bytes=round(statistics.median(turn[method][1] for turn in turns)),
            memory_ratio=statistics.median(turn[method][1] / turn[REFERENCE][1] for turn in turns),
        )
    document = {method: asdict(cost) for method, cost in costs.items()}
    worker.results.folder.mkdir(parents=True, exist_ok=True)
    path = worker.results.folder / FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return costs


def one_run(worker: Worker, method: MethodName) -> tuple[float, int]:
    """Seconds a step, the first eight left out, and the process's peak memory in bytes."""
    trial = Trial(DOMAIN, method, LEARNING_RATES[0], usual_beta(DOMAIN, method), 0, "validation")
    folder = worker.home / "runs" / f"cost-{method}"
    shutil.rmtree(folder, ignore_errors=True)
    write_run(folder, trial, worker.base, worker.drawn_by_base(trial))
    spec = specification(trial, worker.base)
    (hyperparameters,) = (spec["method"][kind]["hyperparameters"] for kind in spec["method"] if kind != "type")
    hyperparameters["max_steps"] = STEPS
    spec["checkpoints"]["every_steps"] = STEPS
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "trainer", "run", str(folder), "--cache", str(worker.home / "cache")],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    shutil.rmtree(folder)
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    lines = [event for event in events if event["event"] == "progress"]
    return _seconds_a_step(lines, hyperparameters["batch_size"]), max(line["peak_memory_bytes"] for line in lines)


def _seconds_a_step(lines: list[dict[str, float]], batch_size: int) -> float:
    """Of a progress line's steps the trainer tells pairs a second; the first line holds the warming up."""
    steps = [line["step"] for line in lines]
    spans = [after - before for before, after in zip([0.0, *steps], steps, strict=False)]
    timed = [
        (span, span * batch_size / line["pairs_per_second"])
        for span, line in zip(spans, lines, strict=True)
        if span > 0
    ]
    later = timed[1:] or timed
    return sum(seconds for _, seconds in later) / sum(span for span, _ in later)


def read(folder: Path) -> dict[MethodName, Cost]:
    path = folder / FILE
    if not path.is_file():
        return {}
    return {name: Cost(**one) for name, one in json.loads(path.read_text(encoding="utf-8")).items()}
