"""``pairtune up``: what the stack shows its user."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.command_options import AsJson, reports_errors
from cli.configured import settings
from cli.errors import CommandError
from cli.extras import require_extras
from cli.output import console, messages, print_json

if TYPE_CHECKING:
    from cli.local.stack import Up

ApiProcesses = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Processes of the API; PAIRTUNE_API_PROCESSES without it.", show_default=False),
]


@reports_errors
def up(as_json: AsJson = False, api_processes: ApiProcesses = None) -> None:
    """Start everything on this machine, in the foreground; Ctrl-C stops it. JSON comes once all of it is ready."""
    configured = settings()
    if api_processes is not None:
        configured = configured.model_copy(update={"api_processes": api_processes})
    own_services = [] if configured.database_url and configured.broker_url else ["embedded"]
    require_extras(*own_services, "server", "trainer")

    from cli.local.embedded import ServiceDidNotStart  # a second of imports, which no other command should wait for
    from cli.local.stack import StackError, run_stack
    from store.errors import BasesInvalid

    try:
        if as_json:
            run_stack(configured, messages, _document)
        else:
            run_stack(configured, console, partial(_greeting, console))
    except (StackError, ServiceDidNotStart, BasesInvalid) as error:
        raise CommandError(str(error)) from error


def _document(found: Up) -> None:
    document = asdict(found)
    del document["first_key"]  # a program reads the file
    print_json(document)
    sys.stdout.flush()  # a pipe would keep it until the end


def _greeting(console: Console, found: Up) -> None:
    console.print(f"pairtune is up: [bold]{found.url}[/bold]  (logs: {found.logs})", soft_wrap=True)
    if found.first_key is not None and sys.stdout.isatty():  # rich takes FORCE_COLOR for a terminal
        console.print(f"Your API key, also in {found.key_file}: [bold]{found.first_key}[/bold]", soft_wrap=True)
    else:
        console.print(f"API key: {found.key_file}", soft_wrap=True)
    console.print("Ctrl-C stops all of it.")
