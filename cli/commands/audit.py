"""``pairtune audit``: who did what, straight from the database."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.command_options import AsJson, reports_errors
from cli.output import print_json, print_table

HEADINGS = ("at", "action", "subject", "project", "by", "address", "details")


@reports_errors
def audit(
    project: Annotated[str | None, typer.Option(help="The name of a project; all of them without it.")] = None,
    action: Annotated[str | None, typer.Option(help="One action, such as `key.created`.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Number of entries.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The audit log, newest first: keys, limits, webhooks and deletions; while `up` runs, or with
    PAIRTUNE_DATABASE_URL."""
    from cli.local import tenants

    entries = tenants.audit_entries(project, action, limit)
    if as_json:
        print_json(entries)
    else:
        print_table(HEADINGS, [[_cell(entry[heading]) for heading in HEADINGS] for entry in entries])


def _cell(value: object) -> object:
    return (json.dumps(value) if value else None) if isinstance(value, dict) else value
