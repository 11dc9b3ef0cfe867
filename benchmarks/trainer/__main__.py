"""``python -m benchmarks.trainer [--quick]``: every case in a process of its own, rounds in turns, one table.

Writes benchmarks/results/trainer.json and the tables in docs/development/performance.md. Ratios are taken within a
round, so that other load on the machine meets both sides; the figure is their median. Bytes are counted on fake
tensors of real networks, always the same. ``--bytes`` counts those alone and leaves the other figures as they are.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.trainer.subjects import BATCH, base_of, write_run
from benchmarks.trainer.traffic import REAL_SIZE, count
from trainer.spec.run import Adapter

RESULTS, PAGE = Path("benchmarks/results"), Path("docs/development/performance.md")
ADAPTERS = ("lora", "dora")
HELD_LIMIT, MOVED_LIMIT = 1.06, 1.25  # of LoRA, in terms of the network alone
MAIN = ("plain", "mapo", "dpo")
OPTIONS = ("sft", "dco", "uncached", "streamed", "checkpointing", "channels last", "compiled")
JOB_STEPS = {"emoji-xl": 200, "mid-size": 30}

Case = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    name: str
    subject: str
    ratio: float
    low: float
    high: float
    must_reach: str


def main(arguments: Sequence[str]) -> None:
    quick = "--quick" in arguments
    count_bytes()
    if "--bytes" in arguments:
        return
    subjects = ["emoji-xl"] if quick else ["emoji-xl", "mid-size"]
    figures: list[Figure] = []
    for subject in subjects:
        rounds, steps = (1, 4) if quick or subject == "mid-size" else (2, 6)
        figures += measured(subject, rounds, steps, quick)
        write(figures)


def measured(subject: str, rounds: int, steps: int, quick: bool) -> list[Figure]:
    names = MAIN if quick else (*MAIN, *OPTIONS)
    bare = run_case("bare", subject, 3 * steps)
    cases: dict[str, list[Case]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            cases[name].append(run_case(name, subject, steps))
    low, middle, high = statistics.quantiles(bare["ratios"], n=4)
    times = {name: [case["seconds"][name] for case in found] for name, found in cases.items()}
    memory = {name: [case["memory_bytes"] for case in found] for name, found in cases.items()}
    job = whole_job_rates(subject, rounds)
    plain_rate = [BATCH[subject] / seconds for seconds in times["plain"]]
    figures = [
        Figure("step / bare forward and backward, time", subject, middle, low, high, "<= 1.05"),
        figure("step / plain loop, time", subject, times["mapo"], times["plain"], "<= 0.70"),
        figure("whole job / plain loop, pairs a second", subject, job, plain_rate, ""),
        figure("MaPO / Diffusion-DPO, time of a step", subject, times["mapo"], times["dpo"], "<= 0.70"),
        figure("MaPO / Diffusion-DPO, peak memory", subject, memory["mapo"], memory["dpo"], "<= 1.0"),
        figure("MaPO / plain loop, peak memory", subject, memory["mapo"], memory["plain"], ""),
    ]
    for name in names[len(MAIN) :]:
        figures.append(figure(f"{name} / MaPO, time of a step", subject, times[name], times["mapo"], ""))
        figures.append(figure(f"{name} / MaPO, peak memory", subject, memory[name], memory["mapo"], ""))
    return figures


def figure(name: str, subject: str, above: Sequence[float], below: Sequence[float], must_reach: str) -> Figure:
    """Round by round where there are as many of both, else by medians."""
    if len(above) == len(below):
        found = [one / other for one, other in zip(above, below, strict=True)]
    else:
        found = [statistics.median(above) / statistics.median(below)]
    return Figure(name, subject, statistics.median(found), min(found), max(found), must_reach)


def run_case(case: str, subject: str, steps: int) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.trainer.case", case, subject, str(steps), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: Case = json.loads(done.stdout.splitlines()[-1])
    seconds = ", ".join(f"{name} {value:.3f} s" for name, value in result["seconds"].items())
    print(f"{subject}: {seconds}; {result['memory_bytes'] / 2**20:.0f} MiB", flush=True)
    return result


def whole_job_rates(subject: str, rounds: int) -> list[float]:
    """Pairs a second from the first encoded image to the exported adapter: caching, validation and export included."""
    rates = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            base = base_of(subject, Path(folder) / "base")
            steps = JOB_STEPS[subject]
            hyperparameters = {"max_steps": steps, "preset": "style"}
            directory = write_run(Path(folder) / "run", subject, base, "mapo", hyperparameters)
            command = [sys.executable, "-m", "trainer", "run", str(directory)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                started = 0.0
                for line in process.stdout:
                    event = json.loads(line)
                    if event["event"] == "phase" and event["phase"] == "caching":
                        started = time.monotonic()
                seconds = time.monotonic() - started
            assert process.returncode == 0
        rates.append(steps * BATCH[subject] / seconds)
        print(f"{subject}: whole job {rates[-1]:.1f} pairs/s", flush=True)
    return rates


def write(figures: Sequence[Figure]) -> None:
    about = {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "device": "cpu",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "batch_pairs": BATCH,
    }
    document = {**about, "figures": [asdict(one) for one in figures]}
    (RESULTS / "trainer.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    table = ["| figure | network | ratio | range of rounds | must reach | |", "|---|---|---|---|---|---|"]
    for one in figures:
        interval = f"{one.low:.3f} - {one.high:.3f}"
        table.append(
            f"| {one.name} | {one.subject} | {one.ratio:.3f} | {interval} | {one.must_reach} | {verdict(one)} |"
        )
    where = f"On {about['device']}, {about['threads']} threads of {about['cores']} cores, torch {about['torch']}."
    put_into_page("figures", [where, "", *table])


def count_bytes() -> None:
    """What a pair holds and moves in networks of real size, with an adapter and without."""
    table = [
        "| network | adapter | held, GiB | held / alone | moved, GB | moved / alone | kernels | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    counted = []
    for name, network in REAL_SIZE.items():
        alone = count(network, None)
        row = f"| {name} | none | {alone.held / 2**30:.2f} | | {alone.moved / 1e9:.0f} | | {alone.kernels:,} | |"
        table.append(row)
        counted.append({"network": name, "adapter": None, **asdict(alone)})
        for kind in ADAPTERS:
            found = count(network, Adapter.model_validate({"rank": 16, "type": kind}))
            held, moved = found.held / alone.held, found.moved / alone.moved
            reached = "reached" if held <= HELD_LIMIT and moved <= MOVED_LIMIT else "**missed**"
            table.append(
                f"| {name} | {kind} | {found.held / 2**30:.2f} | {held:.3f} | {found.moved / 1e9:.0f} | {moved:.3f} "
                f"| {found.kernels:,} | {reached if kind == 'lora' else ''} |"
            )
            counted.append({"network": name, "adapter": kind, **asdict(found)})
    (RESULTS / "traffic.json").write_text(json.dumps(counted, indent=2) + "\n", encoding="utf-8")
    where = f"One pair in bf16, rank 16; LoRA must hold <= {HELD_LIMIT} and move <= {MOVED_LIMIT} of the network alone."
    put_into_page("bytes", [where, "", *table])


def put_into_page(section: str, lines: Sequence[str]) -> None:
    begin, end = f"<!-- begin {section} -->", f"<!-- end {section} -->"
    print("\n".join(lines))
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text("\n".join([head + begin, *lines, end]) + rest.partition(end)[2], encoding="utf-8")


def verdict(one: Figure) -> str:
    if not one.must_reach:
        return ""
    comparison, limit = one.must_reach.split()
    reached = one.ratio <= float(limit) if comparison == "<=" else one.ratio >= float(limit)
    return "reached" if reached else "**missed**"


if __name__ == "__main__":
    main(sys.argv[1:])
