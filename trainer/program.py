"""``python -m trainer run DIR [--cache DIR]``: one training run, from DIR/spec.json to DIR/output/.
``python -m trainer sample DIR``: images of a base or an adapter, from DIR/draw.json to DIR/images/.

Events leave as JSON lines on stdout (trainer.spec.events), everything else on stderr. Exit codes: 0 done, 64 spec or
data can never train, 75 stopped by SIGTERM (run again to go on), 1 any other failure.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType

from trainer.export.metadata import versions
from trainer.export.model_card import new_card
from trainer.run_directory.output import finished_result
from trainer.run_directory.run import read_run, read_sample_spec
from trainer.run_directory.run_lock import lock_run_directory
from trainer.runtime.errors import (
    BadRun,
    DeviceFault,
    Interrupted,
    TrainerError,
    out_of_memory_code,
    out_of_memory_message,
)
from trainer.runtime.event_stream import PhaseReporter, Report, claim_stdout
from trainer.runtime.garbage import lasting_objects
from trainer.runtime.hardware_errors import device_fault, exhausted_memory
from trainer.runtime.signals import StopRequest
from trainer.spec.events import EXIT_BAD_SPEC, EXIT_DONE, EXIT_INTERRUPTED, Done, Event, Failed, Sampled

EXIT_FAILED = 1
IS_MAIN = os.environ.get("RANK", "0") == "0"  # as accelerate launch and torchrun number their processes


def main(arguments: Sequence[str], stop: StopRequest) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, or go on training, in a run directory")
    run.add_argument("directory", type=Path, metavar="DIR")
    run.add_argument("--cache", type=Path, metavar="DIR", help="shared between runs; default: DIR/cache")
    run.add_argument("--cache-bytes", type=int, metavar="N", help="how large the cache may grow; default: any size")
    sampling = commands.add_parser("sample", help="sample images")
    sampling.add_argument("directory", type=Path, metavar="DIR")
    given = parser.parse_args(arguments)
    report = claim_stdout()
    sys.excepthook = unexpected(report if IS_MAIN else ignore)
    try:
        if given.command == "sample":
            report(sample(given.directory, report, stop))
            return EXIT_DONE
        done = train(
            given.directory,
            given.cache or given.directory / "cache",
            given.cache_bytes,
            report if IS_MAIN else ignore,
            stop,
        )
        if IS_MAIN:
            report(done)
    except Interrupted:
        return EXIT_INTERRUPTED
    except TrainerError as error:
        report(Failed(code=error.code, message=str(error)))
        return EXIT_BAD_SPEC if isinstance(error, BadRun) else EXIT_FAILED
    return EXIT_DONE


def train(directory: Path, cache: Path, cache_bytes: int | None, report: Report, stop: StopRequest) -> Done:
    """Raises RunInUse where another process trains in ``directory``; a process group counts as one."""
    with lock_run_directory(directory) if IS_MAIN else nullcontext():
        return train_alone(directory, cache, cache_bytes, report, stop)


def train_alone(directory: Path, cache: Path, cache_bytes: int | None, report: Report, stop: StopRequest) -> Done:
    # Heavy imports come after the run is known to be sound: a bad one fails in a fraction of a second.
    run = read_run(directory)
    done = finished_result(run)
    if done is not None:
        return done
    card = new_card(run, versions())  # a missing fact ends the run here, not at the export
    phases = PhaseReporter(report)
    phases.enter("loading")
    stop.check()
    with lasting_objects():
        prepare_libraries()
        from trainer import recipe
        from trainer.cache.cache import Cache
        from trainer.families import opener
        from trainer.runtime.distributed import join_process_group

        opener(run.spec.base.family)  # it imports the family's libraries
    with join_process_group() as process_group, Cache(cache, cache_bytes) as opened:
        stop.single_process = process_group.size == 1
        stop.agree(process_group.any(stop.requested))
        return recipe.train(run, card, opened, phases, stop, process_group)


def sample(directory: Path, report: Report, stop: StopRequest) -> Sampled:
    """Images that exist already are sampled again."""
    spec = read_sample_spec(directory)
    phases = PhaseReporter(report)
    phases.enter("loading")
    stop.check()
    with lasting_objects():
        prepare_libraries()
        from trainer.sample_request import run_sample_request

    return run_sample_request(spec, directory, phases, stop)


def ignore(_event: Event) -> None:
    """The reports of processes other than the main one, which would be the same."""


def prepare_libraries() -> None:
    """Before torch is imported: let its segments of GPU memory grow, so that batches of many sizes leave no gaps.

    Progress bars and advice are for people at a terminal; errors still come through.
    """
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


Hook = Callable[[type[BaseException], BaseException, TracebackType | None], None]


def unexpected(report: Report) -> Hook:
    """A hook that reports an unexpected exception as Failed; the traceback goes to stderr, the exit code is 1."""

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        which = exhausted_memory(error)
        if which is not None:
            report(Failed(code=out_of_memory_code(which), message=out_of_memory_message(which)))
        elif (reported := device_fault(error)) is not None:
            report(Failed(code=DeviceFault.code, message=str(DeviceFault(reported))))
        elif not isinstance(error, BrokenPipeError):  # no reader of events is left
            report(Failed(code="internal_error", message=f"{kind.__name__}: {error}"))
        sys.__excepthook__(kind, error, traceback)

    return hook
