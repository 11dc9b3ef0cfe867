"""``python -m tests.mutants PACKAGE``: break NUMBER lines one at a time, chosen by SEED, and see which tests notice.

The first run measures which of the package's test files execute which lines; that is kept in var/mutants/executed, and
measured again with --measure. A report is written to
tests/mutants/results/PACKAGE.json. Exits with 1 if fewer than nine tenths are killed or argued equivalent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutants.executed import PACKAGES, Executed, executed_by
from tests.mutants.mutations import Mutant, mutants_of
from tests.mutants.trial import Outcome, copied, preload, try_out

ROOT = Path(__file__).parents[2]
STATE = ROOT / "var" / "mutants"
RESULTS = Path(__file__).parent / "results"
EQUIVALENT = Path(__file__).parent / "equivalent.toml"
WANTED = 0.9


def main() -> int:
    arguments = parsed()
    equivalent: dict[str, str] = tomllib.loads(EQUIVALENT.read_text())
    chosen = select(arguments.package, arguments.number, arguments.seed, arguments.only)
    tests = test_files([f"tests/{arguments.package}", *arguments.also])
    if arguments.measure:
        shutil.rmtree(STATE / "executed", ignore_errors=True)
    executed = executed_by(ROOT, tests, STATE / "executed", processes=arguments.processes)
    before = killed_before(arguments.package) if arguments.again else {}
    fresh = [mutant for mutant in chosen if mutant.id not in before]
    outcomes = before | tried(arguments.package, fresh, equivalent, executed, arguments.processes)
    rows = [row(mutant, outcomes[mutant.id], equivalent) for mutant in chosen]
    if not arguments.only:
        RESULTS.mkdir(exist_ok=True)
        report = {"package": arguments.package, "seed": arguments.seed, "number": len(rows), "mutants": rows}
        (RESULTS / f"{arguments.package}.json").write_text(json.dumps(report, indent=1) + "\n")
    return concluded(rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Mutation testing of one package.")
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("--number", type=int, default=100, help="how many mutants are drawn (100)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    parser.add_argument("--processes", type=int, default=2, help="how many are tried at a time (2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="these mutants instead")
    parser.add_argument("--again", action="store_true", help="only those that the last report does not call killed")
    parser.add_argument("--also", nargs="+", default=[], metavar="FOLDER", help="of tests, beside tests/PACKAGE")
    parser.add_argument("--measure", action="store_true", help="measure again which tests execute which lines")
    return parser.parse_args()


def select(package: str, number: int, seed: int, only: Sequence[str]) -> list[Mutant]:
    """Each by its own chance, so that a change of the code changes the draw in that place alone."""
    files = sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    every = [mutant for path in files for mutant in mutants_of(ROOT, path)]
    if only:
        return [mutant for mutant in every if mutant.id in only]
    return sorted(every, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.id}".encode()).digest())[:number]


def killed_before(package: str) -> dict[str, Outcome]:
    report = json.loads((RESULTS / f"{package}.json").read_text())
    return {
        row["id"]: Outcome(row["verdict"], row.get("killed_by", ""), (), 0.0)
        for row in report["mutants"]
        if row["verdict"] in ("killed", "timeout")
    }


def test_files(folders: Sequence[str]) -> list[str]:
    return [str(path.relative_to(ROOT)) for folder in folders for path in sorted((ROOT / folder).rglob("test_*.py"))]


def tried(
    package: str,
    mutants: Sequence[Mutant],
    equivalent: Mapping[str, str],
    executed: Mapping[str, Executed],
    processes: int,
) -> dict[str, Outcome]:
    """Each worker takes the next mutant; its copy of the tree goes when it ends."""
    todo = [mutant for mutant in mutants if mutant.id not in equivalent]
    outcomes = {mutant.id: Outcome("equivalent", "", (), 0.0) for mutant in mutants if mutant.id in equivalent}
    preload(package)
    context = multiprocessing.get_context("fork")
    jobs, done = context.SimpleQueue(), context.SimpleQueue()
    for job in [*todo, *[None] * processes]:
        jobs.put(job)

    def work(number: int) -> None:
        folder = STATE / f"copy-{package}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        copy = copied(ROOT, folder / "tree")
        while (mutant := jobs.get()) is not None:
            done.put((mutant.id, try_out(mutant, copy, executed, folder)))
        shutil.rmtree(folder, ignore_errors=True)

    workers = [context.Process(target=work, args=(number,)) for number in range(processes)]
    for worker in workers:
        worker.start()
    for number in range(len(todo)):
        name, outcome = done.get()
        outcomes[name] = outcome
        print(
            f"{number + 1}/{len(todo)} {outcome.verdict:10} {outcome.seconds:6.1f} s  {name}  {outcome.killed_by}",
            flush=True,
        )
    for worker in workers:
        worker.join()
    return outcomes


def row(mutant: Mutant, outcome: Outcome, equivalent: Mapping[str, str]) -> dict[str, object]:
    shown = {"id": mutant.id, "line": mutant.line, "from": mutant.before[:120], "to": mutant.text[:120]}
    found: dict[str, object] = {**shown, "verdict": outcome.verdict}
    if outcome.killed_by:
        found["killed_by"] = outcome.killed_by
    if mutant.id in equivalent:
        found["why"] = equivalent[mutant.id]
    return found


def concluded(rows: Sequence[Mapping[str, object]]) -> int:
    by_verdict = {
        verdict: sum(row["verdict"] == verdict for row in rows)
        for verdict in sorted({str(row["verdict"]) for row in rows})
    }
    missed = [row for row in rows if row["verdict"] in ("survived", "unexecuted")]
    for one in missed:
        print(f"{one['verdict']}: {one['id']} line {one['line']}: {one['from']!r} -> {one['to']!r}")
    share = 1 - len(missed) / len(rows) if rows else 1.0
    print(f"{len(rows)} mutants: {by_verdict}; {share:.0%} killed or equivalent, {WANTED:.0%} wanted")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
