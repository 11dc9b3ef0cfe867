"""The ``pairtune`` command: the local stack, jobs, images, datasets, models, keys. Exit codes: cli/errors.py."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from cli.commands import jobs
from cli.commands.audit import audit
from cli.commands.datasets import datasets_app
from cli.commands.doctor import doctor
from cli.commands.keys import keys_app
from cli.commands.models import models_app
from cli.commands.projects import projects_app
from cli.commands.sample import sample
from cli.commands.up import up

app = typer.Typer(no_args_is_help=True, help="Preference fine-tuning of image models as a service.")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"pairtune {version('pairtune')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


app.command()(up)
app.command()(doctor)
app.command()(jobs.train)
app.command("jobs")(jobs.jobs)
app.command("watch")(jobs.watch_job)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.download)
app.command()(sample)
app.command()(audit)
app.add_typer(datasets_app, name="datasets")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(projects_app, name="projects")


if __name__ == "__main__":
    app()
