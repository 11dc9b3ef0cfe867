"""``python -m benchmarks.gpu_check``: whether the trainer does on this machine's GPU what it promises.

Makes random bases of real size, runs the trainer's own programs on them, and writes gpu-check.json and gpu-check.md.
Takes ten minutes at most and downloads nothing. Exit code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu_check import sections
from benchmarks.gpu_check.programs import run_module
from benchmarks.gpu_check.report import Check, exit_code, git_commit, write_reports
from benchmarks.gpu_check.run_folders import write_pairs
from benchmarks.gpu_check.sections import Limits, Setting

DISK_GIB = 35  # the two bases, the cache and the runs that exist at a time
# A tiny network's step is nearly all overhead: its time says nothing.
TINY_LIMITS = Limits(step_by_bare=20.0)


@dataclass(frozen=True)
class Section:
    """``share`` of the whole time; what a section leaves goes to the later ones."""

    run: Callable[[Setting], Iterator[Check]]
    share: float
    needs_sdxl: bool = True


# The most important first: of a slow GPU, the last ones are not run.
SECTIONS: dict[str, Section] = {
    "bases": Section(sections.bases, 0.08, needs_sdxl=False),
    "memory": Section(sections.memory, 0.30),
    "step": Section(sections.step_time, 0.07),
    "resume": Section(sections.resume, 0.08),
    "export": Section(sections.export, 0.01),
    "sd3": Section(sections.sd3, 0.13, needs_sdxl=False),
    "precision": Section(sections.precision, 0.14),
    "generation": Section(sections.generation, 0.03),
    "errors": Section(sections.device_errors, 0.04, needs_sdxl=False),
    "compile": Section(sections.compiled, 0.08),
    "gpus": Section(sections.two_gpus, 0.04),
}


def main(arguments: Sequence[str], limits: Limits | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("var/gpu-check"), help="for the reports and the work")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, shared between the sections")
    parser.add_argument("--only", metavar="SECTION,...", help=f"of {', '.join(SECTIONS)}; bases are always made")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, on a CPU too: checks this check itself")
    given = parser.parse_args(arguments)
    chosen = list(SECTIONS) if given.only is None else ["bases", *given.only.split(",")]
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"--only: unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    started, end = time.monotonic(), time.monotonic() + 60 * given.minutes
    found = run_module("benchmarks.gpu_check.device_errors", "facts", deadline=end)
    if found.returncode != 0:
        sys.exit(f"The device cannot be opened: {found.end()}")
    facts = found.result()
    if facts["device"] != "cuda" and not given.tiny:
        sys.exit(
            "torch finds no CUDA GPU here: check nvidia-smi, and that torch is the CUDA build. "
            "--tiny runs the check with tiny networks on a CPU."
        )
    work = given.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if not given.tiny and shutil.disk_usage(work).free < DISK_GIB * 2**30:
        sys.exit(f"{work} has less than {DISK_GIB} GiB free: choose another --folder")
    write_pairs(work / "pairs", 32 if given.tiny else 1024)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "tiny": given.tiny,
        **facts,
    }
    limits = limits or (TINY_LIMITS if given.tiny else Limits())
    setting = Setting(work.resolve(), facts, limits, given.tiny, steps=40 if given.tiny else 8)
    checks: list[Check] = []
    try:
        for check in run_sections(setting, [SECTIONS[name] for name in SECTIONS if name in chosen], started, end):
            print(f"{check.section}: {check.name}: {check.outcome}{f' ({check.why})' if check.why else ''}", flush=True)
            checks.append(check)
            write_reports(given.folder, about | {"seconds": round(time.monotonic() - started)}, checks)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{given.folder}/gpu-check.md has all of it.")
    return exit_code(checks)


def run_sections(setting: Setting, chosen: Sequence[Section], started: float, end: float) -> Iterator[Check]:
    """Each until its own deadline, so that one that hangs takes no time from the later ones."""
    whole, passed = sum(section.share for section in chosen), 0.0
    for section in chosen:
        passed += section.share
        current = replace(setting, deadline=started + (end - started) * passed / whole)
        if section.needs_sdxl and not setting.base("sdxl").is_dir():
            name = section.run.__name__.replace("_", " ").capitalize()
            yield sections.not_run(name, "all", "", "the random base of sdxl was not made")
        else:
            yield from section.run(current)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
