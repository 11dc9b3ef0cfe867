"""The ``pairtune`` command. ``pairtune up`` is the local stack; ``pairtune keys`` manages API keys."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from cli.embedded import ServiceDidNotStart
from cli.stack import StackError, run_stack
from store import keys as key_queries
from store.database import open_engine, open_sessions
from store.errors import BasesInvalid
from store.settings import MissingSetting, settings

app = typer.Typer(no_args_is_help=True, help="Preference fine-tuning of image models as a service.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys; needs PAIRTUNE_DATABASE_URL.")
app.add_typer(keys_app, name="keys")
errors = Console(stderr=True)


@app.command()
def up() -> None:
    """Start everything on this machine, in the foreground; Ctrl-C stops it."""
    try:
        run_stack(settings(), Console())
    except (StackError, ServiceDidNotStart, BasesInvalid) as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    project: Annotated[str, typer.Option(help="Made if there is none of this name.")] = key_queries.DEFAULT_PROJECT,
) -> None:
    """Print a new key. It is shown this once."""
    try:
        engine = open_engine(settings().required_database_url, pool_size=1)
    except MissingSetting as error:
        errors.print(str(error))
        raise typer.Exit(2) from error
    with open_sessions(engine).begin() as session:
        typer.echo(key_queries.create(session, key_queries.ensure_project(session, project), name))


if __name__ == "__main__":
    app()
