"""Watching a job over the public API: its events as lines, its progress as a bar."""

from __future__ import annotations

import time
from collections.abc import Iterator

import openai
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

POLL_SECONDS = 0.5
ENDED = {"succeeded", "failed", "cancelled"}


def follow(client: openai.OpenAI, job_id: str, console: Console) -> FineTuningJob:
    """Returns the job in its final state; prints what happens until then."""
    seen: set[str] = set()
    with Progress(
        TextColumn("  training"), BarColumn(40), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
    ) as bar:
        task = bar.add_task("waiting for a worker", total=None)
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)
            for event in _unseen(client, job_id, seen):
                _show(event, bar, task)
            if job.status in ENDED:
                return job
            time.sleep(POLL_SECONDS)


def _unseen(client: openai.OpenAI, job_id: str, seen: set[str]) -> Iterator[FineTuningJobEvent]:
    """Events that have come since the last call, oldest first."""
    fresh = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=50):  # newest first, page by page
        if event.id in seen:
            break
        fresh.append(event)
    seen.update(event.id for event in fresh)
    return reversed(fresh)


def _show(event: FineTuningJobEvent, bar: Progress, task: TaskID) -> None:
    data = event.data if isinstance(event.data, dict) else {}
    if data.get("event") == "progress":
        text = (
            f"step {data['step']}/{data['max_steps']}  loss {data['loss']:.4f}  margin {data['margin']:+.4f}  "
            f"{data['pairs_per_second']:.0f} pairs/s  ETA {data['eta_seconds']:.0f} s"
        )
        bar.update(task, total=data["max_steps"], completed=data["step"], description=text)
    elif event.type == "metrics" or event.level != "info" or data.get("event") in {None, "started"}:
        bar.console.print(f"  {event.message}", highlight=False)
