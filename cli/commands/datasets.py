"""``pairtune datasets``: gather pairs from files, and see what is wrong with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.status import Status

from cli.client.retry import RetryPolicy
from cli.client.server import JsonObject, Server, at, connected
from cli.command_options import AsJson, reports_errors
from cli.configured import settings
from cli.errors import CommandError, RequestFailed
from cli.output import answer, messages, moment, print_json, print_table, say

datasets_app = typer.Typer(no_args_is_help=True, help="Datasets: pairs gathered over time, in revisions.")
DATASETS, FILES = "/v1/datasets", "/v1/files"
POLL_SECONDS = 0.5
DatasetId = Annotated[str, typer.Argument(help="The dataset's id, ds-...")]
Files = Annotated[list[str], typer.Argument(help="Uploads (docs/reference/formats.md), or ids of files.")]
Ties = Annotated[str | None, typer.Option(help="drop, both or error: what to do with pairs that prefer neither image.")]
InvalidRows = Annotated[str | None, typer.Option(help="refuse or drop: what to do with rows that cannot be used.")]
Strict = Annotated[bool, typer.Option("--strict", help="Take every warning for an error.")]
Prompt = Annotated[str | None, typer.Option(help="The prompt of images that come without one.")]


class FileNotUsable(CommandError):
    """The upload was read, and cannot be used."""

    exit_code = 5


@datasets_app.command()
@reports_errors
def create(name: Annotated[str, typer.Argument(help="Any name.")], as_json: AsJson = False) -> None:
    """Make an empty dataset."""
    with connected(settings()) as server:
        dataset = server.post(DATASETS, {"name": name})
    _show(dataset, as_json)


@datasets_app.command()
@reports_errors
def add(
    dataset_id: DatasetId,
    files: Files,
    ties: Ties = None,
    invalid_rows: InvalidRows = None,
    strict: Strict = False,
    prompt: Prompt = None,
    as_json: AsJson = False,
) -> None:
    """Upload files where they are paths, wait until they are read, and add their pairs."""
    policy = _policy(ties, invalid_rows, strict, prompt)
    with connected(settings()) as server:
        dataset: JsonObject = {}
        for file in files:
            file_id = read(server, file, policy)["id"]
            dataset = server.post(f"{at(DATASETS, dataset_id)}/files", {"file_id": file_id})
    _show(dataset, as_json)


@datasets_app.command("list")
@reports_errors
def list_datasets(as_json: AsJson = False) -> None:
    """Every dataset, newest first."""
    with connected(settings()) as server:
        data = list(server.every(DATASETS))
    if as_json:
        print_json(data)
        return
    rows = [(one["id"], one["name"], one["revision"], one["pairs"], moment(one["created_at"])) for one in data]
    print_table(("dataset", "name", "revision", "pairs", "created"), rows)


@datasets_app.command()
@reports_errors
def report(
    what: Annotated[str, typer.Argument(metavar="ID", help="A dataset's or file's id, or a path to upload.")],
    revision: Annotated[int | None, typer.Option(help="Of a dataset; the latest without it.")] = None,
    ties: Ties = None,
    invalid_rows: InvalidRows = None,
    strict: Strict = False,
    prompt: Prompt = None,
    as_json: AsJson = False,
) -> None:
    """What was read, what was dropped and why, and what a person should check."""
    with connected(settings()) as server:
        if what.startswith("ds-"):
            found = _reviewed(server, what, revision, as_json)
        else:
            file = read(server, what, _policy(ties, invalid_rows, strict, prompt), refuse=False)
            found = _report(server, f"{at(FILES, file['id'])}/report", as_json)
    if as_json:
        print_json(found)
    else:
        typer.echo(found, nl=False)


def _policy(ties: str | None, invalid_rows: str | None, strict: bool, prompt: str | None) -> dict[str, str]:
    """Fields of an upload; what was not said is the API's default."""
    given = {"ties": ties, "invalid_rows": invalid_rows, "strict": "true" if strict else None, "prompt": prompt}
    return {name: value for name, value in given.items() if value is not None}


def read(server: Server, file: str, policy: dict[str, str], *, refuse: bool = True) -> JsonObject:
    """The file once it was read, uploaded first where it is a path. Raises FileNotUsable if it cannot be used."""
    path = Path(file)
    if path.is_file():
        say(f"Uploading {path} ({path.stat().st_size:,} bytes).")
        file = server.upload(path, **policy)["id"]
    retrying = server.with_retries(RetryPolicy(None))
    with Status(f"{file} is being read.", console=messages) as status:
        while (found := retrying.get(at(FILES, file)))["status"] == "uploaded":
            progress = found["progress"]
            if progress is not None:
                of = f" of {progress['total']:,}" if progress["total"] else ""
                text = f"{file}: {progress['rows']:,}{of} rows read, {progress['kept']:,} pairs kept."
                if progress.get("images"):
                    text = f"{file}: {progress['stored']:,} of {progress['images']:,} images stored."
                status.update(text)
            time.sleep(POLL_SECONDS)
    if refuse and found["status"] != "processed":
        raise FileNotUsable(f"{file} cannot be used:\n{found['status_details']}")
    return found


def _reviewed(server: Server, dataset_id: str, revision: int | None, as_json: bool) -> JsonObject | str:
    """Large sets take more than one request to be measured."""
    while True:
        try:
            return _report(server, f"{at(DATASETS, dataset_id)}/report", as_json, revision=revision)
        except RequestFailed as error:
            if error.code != "report_not_ready":
                raise
            say(str(error))


def _report(server: Server, path: str, as_json: bool, **parameters: int | None) -> JsonObject | str:
    return server.get(path, **parameters) if as_json else server.text(path, format="text", **parameters)


def _show(dataset: JsonObject, as_json: bool) -> None:
    noun = "pair" if dataset["pairs"] == 1 else "pairs"
    text = f"{dataset['id']} is at revision {dataset['revision']} with {dataset['pairs']} {noun}."
    answer(dataset, text, as_json)
