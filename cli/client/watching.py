"""Following a job: its events as lines, its progress as a bar with ETA, margin and held-out accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from cli.client.retry import RetryPolicy
from cli.client.server import JsonObject, Server, at
from cli.errors import Interrupted, WaitTimeout
from cli.output import duration

POLL_SECONDS = 1.0
ENDED = ("succeeded", "failed", "cancelled")
AT_REST = (*ENDED, "paused")
JOBS = "/v1/fine_tuning/jobs"


def watch(server: Server, job_id: str, console: Console, seconds: float | None = None) -> JsonObject:
    """Until the job has ended or was paused, at most that long; returns it as it is then.

    A server that goes away is waited for. Raises TimeIsOver, Interrupted.
    """
    bar = progress_bar(console)
    try:
        with bar:
            shown = Shown(bar, bar.add_task("", total=None, phase="waiting"))
            return follow(server, job_id, shown.show, RetryPolicy(seconds, shown.say))
    except KeyboardInterrupt as error:
        raise Interrupted(f"{job_id} continues; `pairtune watch {job_id}` follows it again.") from error


def progress_bar(console: Console) -> Progress:
    """On a narrow terminal its numbers go over several lines, and none is cut; what is no terminal shows no bar."""
    return Progress(
        TextColumn("  {task.fields[phase]}", table_column=Column(no_wrap=True)),
        BarColumn(20, table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", table_column=Column(overflow="fold")),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def follow(
    server: Server,
    job_id: str,
    show: Callable[[JsonObject], None],
    retry_policy: RetryPolicy,
    *,
    poll_seconds: float = POLL_SECONDS,
) -> JsonObject:
    """Every event once, oldest first, the last ones of an ended job included."""
    retrying = server.with_retries(retry_policy)
    seen: set[str] = set()
    while True:
        job = retrying.get(at(JOBS, job_id))
        for event in reversed(list(unseen(retrying, job_id, seen))):
            show(event)
        if job["status"] in AT_REST:
            return job
        if retry_policy.is_over:
            raise WaitTimeout(job_id, job["status"])
        retry_policy.pause(poll_seconds)


def unseen(server: Server, job_id: str, seen: set[str]) -> Iterator[JsonObject]:
    """Events since the last call, newest first."""
    for event in server.every(f"{at(JOBS, job_id)}/events"):
        if event["id"] in seen:
            return
        seen.add(event["id"])
        yield event


@dataclass
class Shown:
    """``accuracy``: the latest held-out implicit accuracy."""

    bar: Progress
    task: TaskID
    accuracy: float | None = None

    def show(self, event: JsonObject) -> None:
        data = event["data"] if isinstance(event["data"], dict) else {}
        kind = data.get("event")
        if kind == "progress":
            self.bar.update(
                self.task,
                total=data["max_steps"],
                completed=data["step"],
                description=self.line(data),
                phase="training",
            )
            return
        if kind == "metrics":
            self.accuracy = data.get("implicit_accuracy", self.accuracy)
        if kind == "phase":
            self.bar.update(self.task, phase=data["phase"])
        else:
            self.say(f"  {event['message']}")

    def say(self, text: str) -> None:
        """Above the bar."""
        self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self, data: JsonObject) -> str:
        """E.g. ``120/300  loss 0.1234  margin +0.0210  accuracy 0.81  26 pairs/s  0:41 left``."""
        margin = "" if data.get("margin") is None else f"  margin {data['margin']:+.4f}"
        accuracy = "" if self.accuracy is None else f"  accuracy {self.accuracy:.2f}"
        return (
            f"{data['step']}/{data['max_steps']}  loss {data['loss']:.4f}{margin}{accuracy}  "
            f"{data['pairs_per_second']:.0f} pairs/s  {duration(data['eta_seconds'])} left"
        )
