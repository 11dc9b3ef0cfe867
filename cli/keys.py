"""``pairtune keys``: API keys, straight in the database that PAIRTUNE_DATABASE_URL names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from cli.asked import AsJson, told
from cli.errors import CommandError
from cli.output import print_json, print_table, say
from store import keys
from store.database import open_engine, open_sessions
from store.settings import MissingSetting, settings

keys_app = typer.Typer(no_args_is_help=True, help="API keys; needs PAIRTUNE_DATABASE_URL.")


class NoDatabase(CommandError):
    exit_code = 2


@keys_app.command("create")
@told
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    project: Annotated[str, typer.Option(help="Made if there is none of this name.")] = keys.DEFAULT_PROJECT,
) -> None:
    """Print a new key. It is shown this once."""
    with _session() as session:
        typer.echo(keys.create(session, keys.ensure_project(session, project), name))


@keys_app.command("list")
@told
def list_keys(as_json: AsJson = False) -> None:
    """All keys by their first characters: the rest is kept nowhere."""
    with _session() as session:
        rows = [
            {
                "id": key.id,
                "prefix": key.prefix,
                "name": key.name,
                "project": project,
                "created": key.created_at.isoformat(timespec="seconds"),
                "revoked": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else None,
            }
            for key, project in keys.every(session)
        ]
    if as_json:
        print_json(rows)
    else:
        print_table(("id", "key", "name", "project", "created", "revoked"), [tuple(row.values()) for row in rows])


@keys_app.command("revoke")
@told
def revoke_key(key_id: Annotated[str, typer.Argument(help="The key's id, from `pairtune keys list`.")]) -> None:
    """End a key at once."""
    with _session() as session:
        if not keys.revoke(session, key_id):
            raise CommandError(f"There is no valid key {key_id}: see `pairtune keys list`.")
    say(f"{key_id} is revoked.")


@contextmanager
def _session() -> Iterator[Session]:
    """Committed at the end."""
    try:
        engine = open_engine(settings().required_database_url, pool_size=1)
    except MissingSetting as error:
        raise NoDatabase(str(error)) from error
    try:
        with open_sessions(engine).begin() as session:
            yield session
    except OperationalError as error:
        raise NoDatabase(f"The database does not answer: {error.orig}") from error
    finally:
        engine.dispose()
