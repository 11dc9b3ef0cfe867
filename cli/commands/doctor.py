"""``pairtune doctor``: what is well, and what to mend."""

from __future__ import annotations

from dataclasses import asdict

import typer

from cli.command_options import AsJson, reports_errors
from cli.configured import settings
from cli.output import console, print_json

MARKS = {"ok": "[green]ok[/green]", "warning": "[yellow]warn[/yellow]", "error": "[red]fail[/red]"}


@reports_errors
def doctor(as_json: AsJson = False) -> None:
    """Check device, database, broker, storage, bases, disk and API; the exit code is 1 if a check failed."""
    from cli.local.checks import CHECKS  # a second of imports, which no other command should wait for

    configured = settings()
    results = [check(configured) for check in CHECKS]
    if as_json:
        print_json([asdict(one) for one in results])
    else:
        for one in results:
            console.print(f"{MARKS[one.state]:>24}  {one.name:<9} ", end="")
            console.print(one.found, markup=False, highlight=False, soft_wrap=True)
            if one.cure:
                console.print(f"{'':17}-> {one.cure}", markup=False, highlight=False, soft_wrap=True)
    if any(one.state == "error" for one in results):
        raise typer.Exit(1)
