"""``pairtune projects``: projects and their limits, straight in the database."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cli.command_options import AsJson, reports_errors
from cli.errors import CommandError
from cli.output import answer, print_json, print_table

projects_app = typer.Typer(
    no_args_is_help=True,
    help="Projects and their limits; while `up` runs, or with PAIRTUNE_DATABASE_URL.",
)
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
DEFAULT, NONE = "default", "none"
LARGEST = 2**62
Count = Annotated[str | None, typer.Option(help="A number, `none` or `default`.", metavar="LIMIT")]


@projects_app.command("list")
@reports_errors
def list_projects(as_json: AsJson = False) -> None:
    """All projects with what each may use; `own` says which limits are not the deployment's."""
    from cli.local import tenants

    rows = tenants.every_project()
    if as_json:
        print_json(rows)
    else:
        shown = [[_cell(value) for value in row.values()] for row in rows]
        print_table(("id", "name", *(name.replace("_", " ") for name in tenants.LIMITS), "own"), shown)


@projects_app.command("set")
@reports_errors
def set_limits(
    name: Annotated[str, typer.Argument(help="The project's name; made if there is none of it.")],
    stored_bytes: Annotated[
        str | None, typer.Option(help="A number, also with KiB, MiB, GiB or TiB; `none` or `default`.", metavar="LIMIT")
    ] = None,
    queued_jobs: Count = None,
    running_jobs: Count = None,
    uploads: Count = None,
    queued_files: Count = None,
    running_files: Count = None,
    queued_images: Count = None,
    running_images: Count = None,
    pairs: Count = None,
    requests_per_minute: Count = None,
    requests_burst: Count = None,
    as_json: AsJson = False,
) -> None:
    """Give a project limits of its own; `default` takes one back. They hold from the next request on."""
    from cli.local import tenants

    given = {
        "stored_bytes": stored_bytes,
        "queued_jobs": queued_jobs,
        "running_jobs": running_jobs,
        "uploads": uploads,
        "queued_files": queued_files,
        "running_files": running_files,
        "queued_images": queued_images,
        "running_images": running_images,
        "pairs": pairs,
        "requests_per_minute": requests_per_minute,
        "requests_burst": requests_burst,
    }
    given_limits = {limit: text for limit, text in given.items() if text is not None}
    own = {limit: _value(limit, text) for limit, text in given_limits.items() if text != DEFAULT}
    found = tenants.with_limits(name, own, given_limits.keys() - own.keys())
    said = f"{name}: {', '.join(f'{limit} {text}' for limit, text in given_limits.items()) or 'nothing to change'}."
    answer(found, said, as_json)


@projects_app.command("delete")
@reports_errors
def delete_project(
    name: Annotated[str, typer.Argument(help="The project's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a project with its keys, files, datasets, jobs, images and webhooks. Nothing brings them back.

    The bytes go with a sweep of blobs, within PAIRTUNE_SWEEP_SECONDS and PAIRTUNE_BLOB_GRACE_SECONDS.
    """
    from cli.local import tenants

    if not yes and typer.prompt(f"This erases everything of project {name}. Type its name to go on") != name:
        raise CommandError("Nothing was erased: the name is another one.")
    erased = tenants.without_project(name)
    rows = ", ".join(f"{count} {table}" for table, count in sorted(erased.items()))
    answer({"name": name, "erased": erased}, f"Erased {name}: {rows}.", as_json)


def _value(limit: str, text: str) -> int | None:
    if text == NONE and limit != "requests_burst":
        return None
    found = re.fullmatch(r"(\d{1,18}) ?(\w*)", text)
    units = UNITS if limit == "stored_bytes" else {"": 1}
    least = 1 if limit.startswith("requests") else 0
    if found is None or found[2] not in units or not least <= int(found[1]) * units[found[2]] <= _maximum(limit):
        raise CommandError(f"--{limit.replace('_', '-')}: {text!r} is not a valid limit; see --help.")
    return int(found[1]) * units[found[2]]


def _maximum(limit: str) -> int:
    return {"requests_per_minute": 60_000_000, "requests_burst": 1_000_000}.get(limit, LARGEST)


def _cell(value: object) -> object:
    return NONE if value is None else ", ".join(value) if isinstance(value, list) else value
