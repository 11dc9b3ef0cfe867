"""``pairtune train``, ``jobs``, ``watch``, ``cancel``, ``pause``, ``resume``, ``download``."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

from cli.client.server import JsonObject, Server, at, connected
from cli.client.watching import JOBS, watch
from cli.command_options import AsJson, Timeout, reports_errors
from cli.configured import settings
from cli.errors import JobEnded
from cli.options import request_of
from cli.output import answer, console, duration, messages, moment, print_json, print_table, say
from trainer.spec.method_facts import METHODS, listed

JobId = Annotated[str, typer.Argument(help="The job's id, ftjob-...")]


@reports_errors
def train(
    file: Annotated[str, typer.Argument(help="An archive of pairs to upload, or the id of a file or dataset.")],
    base: Annotated[str, typer.Option(help="The base model's name.")] = "emoji-xl",
    method: Annotated[str, typer.Option(help=f"{listed(METHODS)}.")] = "mapo",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyperparameter (learning_rate=1e-3), or an option by its path (adapter.rank=32). Repeatable.",
        ),
    ] = None,
    validation: Annotated[str | None, typer.Option(help="An archive or id of held-out pairs.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Becomes part of the model's name.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the job until it has ended or was paused.")] = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Upload pairs and start a job on them."""
    body = request_of(method, change or []) | {"model": base, "seed": seed}
    if suffix is not None:
        body["suffix"] = suffix
    with connected(settings()) as server:
        body["training_file"] = uploaded(server, file)
        if validation is not None:
            body["validation_file"] = uploaded(server, validation)
        job = server.post(JOBS, body)
        say(f"{job['id']} is {job['status']}.")
        if wait:
            job = watch(server, job["id"], messages if as_json else console, timeout)
    _show(job, as_json)
    if wait:
        _require_success(job)


@reports_errors
def jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs."""
    with connected(settings()) as server:
        data = server.get(JOBS, limit=limit)["data"]
    if as_json:
        print_json(data)
        return
    rows = [
        (
            job["id"],
            job["status"] + (f" ({job['requested']} requested)" if job["requested"] else ""),
            job["method"]["type"] if job["method"] else "",
            job["model"],
            moment(job["created_at"]),
            progress_of(job),
        )
        for job in data
    ]
    print_table(("job", "status", "method", "base", "created", "progress"), rows)


@reports_errors
def watch_job(job_id: JobId, timeout: Timeout = None, as_json: AsJson = False) -> None:
    """Follow a job until it has ended or was paused; the exit code is 0 only if it succeeded."""
    with connected(settings()) as server:
        server.get(at(JOBS, job_id))  # a server that was never there is not waited for
        job = watch(server, job_id, messages if as_json else console, timeout)
    _show(job, as_json)
    _require_success(job)


@reports_errors
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """End a job for good. A running one stops after its step."""
    _request(job_id, "cancel", as_json)


@reports_errors
def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Stop a job at a checkpoint, to be resumed later."""
    _request(job_id, "pause", as_json)


@reports_errors
def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Put a paused job back into the queue."""
    _request(job_id, "resume", as_json)


@reports_errors
def download(
    job_id: JobId,
    to: Annotated[Path, typer.Option(help="A directory; made if there is none.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Download a job's result files: adapters, model card, metrics, samples."""
    with connected(settings()) as server:
        job = server.get(at(JOBS, job_id))
        if job["status"] != "succeeded":
            raise JobEnded(job_id, job["status"], "there are no result files yet")
        to.mkdir(parents=True, exist_ok=True)
        written = []
        for file_id in job["result_files"]:
            path = to / Path(server.get(f"/v1/files/{file_id}")["filename"]).name
            written.append({"path": str(path), "bytes": server.download(f"/v1/files/{file_id}/content", path)})
    if as_json:
        print_json(written)
    else:
        print_table(("file", "bytes"), [(one["path"], f"{one['bytes']:,}") for one in written])


def uploaded(server: Server, file: str) -> str:
    """The id of the file; a path is uploaded first."""
    path = Path(file)
    if not path.is_file():
        return file  # an id: the API says if there is none
    say(f"Uploading {path} ({path.stat().st_size:,} bytes).")
    answer: str = server.upload(path)["id"]
    return answer


def progress_of(job: JsonObject) -> str | None:
    """One line of a list: where a running job is, why a failed one failed."""
    if job["error"]:
        return shorten(str(job["error"]["message"]).splitlines()[0], 80, placeholder=" ...")
    progress = job["progress"]
    if job["status"] != "running" or not progress:
        return None
    if "max_steps" in progress:
        return f"{progress['step']}/{progress['max_steps']}, {duration(progress['eta_seconds'])} left"
    return f"{progress['phase']} {progress['done']}/{progress['total']}"


def _request(job_id: str, what: str, as_json: bool) -> None:
    with connected(settings()) as server:
        job = server.post(f"{at(JOBS, job_id)}/{what}")
    pending = f"; {job['requested']} requested, it stops after its step" if job["requested"] else ""
    answer(job, f"{job['id']} is {job['status']}{pending}.", as_json)


def _show(job: JsonObject, as_json: bool) -> None:
    model = job["fine_tuned_model"] if job["status"] == "succeeded" else None
    answer(job, job["id"] if model is None else f"{model}: `pairtune download {job['id']}` fetches it.", as_json)


def _require_success(job: JsonObject) -> None:
    """Raises JobEnded for a job that was watched and did not succeed."""
    if job["status"] == "paused":
        raise JobEnded(job["id"], job["status"], f"`pairtune resume {job['id']}` continues it.")
    if job["status"] != "succeeded":
        raise JobEnded(job["id"], job["status"], (job["error"] or {}).get("message"))
