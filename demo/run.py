"""``make demo``: the main job from end to end, on real parts, as a user would do it.

Starts pairtune on this machine, uploads the bundled OpenMoji pairs with the ``openai`` SDK, trains a MaPO adapter,
downloads it, stops pairtune, loads the adapter into a plain diffusers pipeline and compares it with the base. The exit
code is 1 where a part failed or the adapter is not better than its base (``demo.verdict``).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import psutil
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console
from rich.table import Table

from demo.emoji import pairs
from demo.emoji_xl import TARGETS
from demo.follow import follow
from demo.verdict import shortfall
from store.settings import REPOSITORY

if TYPE_CHECKING:
    from demo.compare import Comparison

OUT = Path("var/demo")
BASE = REPOSITORY / "demo" / "base" / "emoji-xl"
PICTURE = OUT / "before_after.png"
ADAPTER = "pytorch_lora_weights.safetensors"
READY_SECONDS = 90
INSTALL_IS_RECENT_SECONDS = 60  # an installation that ended this lately was part of this `make demo`

# What the benchmark learned for line art over colour (docs/benchmark.md): adapters on every projection and convolution,
# not on attention alone, and the learning rate and beta that its search chose.
METHOD = {
    "type": "mapo",
    "mapo": {"hyperparameters": {"preset": "style", "max_steps": 120, "batch_size": 8, "learning_rate": 4.5e-3}},
}
OPTIONS = {
    "method": METHOD,
    "adapter": {"rank": 16, "target_modules": list(TARGETS)},
    "checkpoints": {"every_steps": 60},
}


class DemoFailed(RuntimeError):
    """Some part of the demo did not do its work; the text says which."""


class Stopwatch:
    """Seconds by part, in the order of the parts."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.parts[name] = time.monotonic() - started


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the stack is stopped on the way out
    console = Console()
    clock = Stopwatch()
    installed = _recent_install_seconds()
    if installed is not None:
        clock.parts["install"] = installed
    try:
        with _stack(console, clock) as client:
            job = _train(client, console, clock)
            measured = _held_out_metrics(client, job)
            adapter = _download(client, job, clock)
    except (DemoFailed, openai.OpenAIError) as failure:
        console.print(f"[red]The demo failed:[/red] {failure}")
        return 1
    result = _compare(adapter, console, clock)
    code = conclude(measured, result, console)
    console.print(f"Adapter: {adapter}   Image: [bold]{PICTURE}[/bold]")
    _print_times(clock, console)
    return code


@contextmanager
def _stack(console: Console, clock: Stopwatch) -> Iterator[openai.OpenAI]:
    """`pairtune up` on a free port with a home of its own; every process of it is gone afterwards."""
    home, port = (OUT / "home").resolve(), _free_port()
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PAIRTUNE_HOME": str(home), "PAIRTUNE_PORT": str(port)}
    console.print("[bold]1. Starting[/bold] PostgreSQL, Valkey, the API, two workers and the dispatcher")
    up = subprocess.Popen([sys.executable, "-m", "cli.main", "up"], env=environment, stdout=subprocess.DEVNULL)
    try:
        with clock.part("start the stack"):
            _wait_until_ready(up, port, home)
        key = (home / "local.key").read_text(encoding="ascii").strip()
        with openai.OpenAI(api_key=key, base_url=f"http://127.0.0.1:{port}/v1") as client:
            yield client
    finally:
        with clock.part("stop the stack"):
            _stop(up)


def _wait_until_ready(up: subprocess.Popen[bytes], port: int, home: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if up.poll() is not None:
            raise DemoFailed(f"`pairtune up` ended with code {up.returncode}; logs: {home / 'logs'}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise DemoFailed(f"pairtune was not ready after {READY_SECONDS} s; logs: {home / 'logs'}")


def _stop(up: subprocess.Popen[bytes]) -> None:
    descendants = psutil.Process(up.pid).children(recursive=True) if up.poll() is None else []
    up.send_signal(signal.SIGINT)
    up.wait()
    _, alive = psutil.wait_procs(descendants, timeout=10)
    if alive:
        raise DemoFailed(f"processes outlived the stack: {[process.name() for process in alive]}")


def _train(client: openai.OpenAI, console: Console, clock: Stopwatch) -> FineTuningJob:
    console.print("[bold]2. Uploading[/bold] the bundled pairs: line art (chosen) over colour (rejected)")
    archive = OUT / "pairs.zip"
    with clock.part("draw, upload and check the pairs"):
        count = pairs.write_archive(archive)
        uploaded = client.files.create(file=archive, purpose="fine-tune")
        file = client.files.wait_for_processing(uploaded.id, poll_interval=0.2)
    if file.status != "processed":
        raise DemoFailed(f"the archive was rejected: {file.status_details}")
    console.print(f"   {file.id}: {count} pairs, {file.bytes:,} bytes, {file.status}")

    console.print("[bold]3. Training[/bold] a MaPO adapter on emoji-xl")
    with clock.part("train and export (job)"):
        job = client.fine_tuning.jobs.create(
            model="emoji-xl",
            training_file=file.id,
            suffix="line-art",
            seed=0,
            extra_body=OPTIONS,
        )
        job = follow(client, job.id, console)
    if job.status != "succeeded":
        raise DemoFailed(f"job {job.id} is {job.status}: {job.error.message if job.error else 'no error given'}")
    return job


def _held_out_metrics(client: openai.OpenAI, job: FineTuningJob) -> dict[str, Any]:
    """Of the exported adapter, on all held-out pairs."""
    for event in client.fine_tuning.jobs.list_events(job.id):  # newest first, page by page
        if isinstance(event.data, dict) and event.data.get("final"):
            return event.data
    raise DemoFailed(f"job {job.id} succeeded without a last measurement")


def _download(client: openai.OpenAI, job: FineTuningJob, clock: Stopwatch) -> Path:
    with clock.part("download the adapter"):
        names = {client.files.retrieve(file_id).filename: file_id for file_id in job.result_files}
        if ADAPTER not in names:
            raise DemoFailed(f"job {job.id} has no {ADAPTER} among its result files: {sorted(names)}")
        path = OUT / ADAPTER
        path.write_bytes(client.files.content(names[ADAPTER]).read())
    return path


def _compare(adapter: Path, console: Console, clock: Stopwatch) -> Comparison:
    console.print("[bold]4. Comparing[/bold] base and adapter on held-out prompts in a plain diffusers pipeline")
    with clock.part("sample and compare"):
        _quiet_libraries()
        from demo.compare import compare  # torch is imported only now, so that the stack starts at once

        return compare(BASE, adapter, PICTURE)


def conclude(measured: dict[str, Any], result: Comparison, console: Console) -> int:
    """Print both measurements; the exit code: 1 where the adapter is not better than its base.

    ``measured``: of the job's last metrics event, on the held-out pairs.
    """
    accuracy, base_accuracy = measured["implicit_accuracy"], measured["base_implicit_accuracy"]
    table = Table("held-out emoji", "base", "adapter", "")
    table.add_row(
        "implicit accuracy",
        f"{base_accuracy:.2f}",
        f"{accuracy:.2f}",
        f"share of {measured['pairs']} pairs whose chosen image is denoised better; "
        f"95% interval {measured['implicit_accuracy_low']:.2f}-{measured['implicit_accuracy_high']:.2f}",
    )
    table.add_row(
        "line-art score",
        f"{result.base_score:.2f}",
        f"{result.adapter_score:.2f}",
        f"of samples, by a judge that is right on {result.scorer_accuracy:.0%} of real held-out images",
    )
    table.add_row(
        "right emoji",
        f"{result.base_fidelity:.2f}",
        f"{result.adapter_fidelity:.2f}",
        "share of samples taken for what the prompt names, of all 262 emoji",
    )
    console.print(table)
    wins = result.win_rate
    console.print(
        f"Style win rate of the adapter over the base: [bold]{wins.rate:.2f}[/bold] "
        f"(95% interval {wins.low:.2f}-{wins.high:.2f}; {result.seeds} seeds a prompt, ties count one half)"
    )
    why_not = shortfall(wins, accuracy=accuracy, base_accuracy=base_accuracy)
    if why_not is not None:
        console.print(f"[red]The demo failed:[/red] {why_not}")
        return 1
    return 0


def _quiet_libraries() -> None:
    """Their bars and notes (no torchvision, an adapter that leaves the text encoders alone) say nothing of the demo."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def _print_times(clock: Stopwatch, console: Console) -> None:
    table = Table("where the time went", "seconds")
    for name, seconds in clock.parts.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("all", f"{sum(clock.parts.values()):.1f}")
    console.print(table)


def _recent_install_seconds() -> float | None:
    """What the Makefile noted, when the installation was part of this run."""
    started, finished = Path("var/install.started"), Path("var/install.finished")
    if not (started.exists() and finished.exists()):
        return None
    begin, end = int(started.read_text()), int(finished.read_text())
    return float(end - begin) if 0 <= time.time() - end < INSTALL_IS_RECENT_SECONDS else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
