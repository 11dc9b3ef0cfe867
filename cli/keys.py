"""``pairtune keys``: API keys, straight in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from cli.asked import AsJson, told
from cli.database import database_session
from cli.errors import CommandError
from cli.output import answer, print_json, print_table, say
from store import keys
from store.roles import Role

keys_app = typer.Typer(no_args_is_help=True, help="API keys; beside a running `up`, or with PAIRTUNE_DATABASE_URL.")


@keys_app.command("create")
@told
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    project: Annotated[str, typer.Option(help="Made if there is none of this name.")] = keys.DEFAULT_PROJECT,
    role: Annotated[Role, typer.Option(help="What it may do: read, also change, also manage webhooks.")] = Role.MEMBER,
    as_json: AsJson = False,
) -> None:
    """Print a new key. It is shown this once."""
    with database_session() as session:
        secret = keys.create(session, keys.ensure_project(session, project), name, role)
        key_id = keys.authenticate(session, secret).key_id
    if as_json:
        print_json({"id": key_id, "key": secret, "name": name, "project": project, "role": role})
    else:
        say(f"{key_id} of project {project}, {role}. `pairtune keys revoke {key_id}` ends it. It is shown this once:")
        typer.echo(secret)


@keys_app.command("list")
@told
def list_keys(as_json: AsJson = False) -> None:
    """All keys by their first characters: the rest is kept nowhere."""
    with database_session() as session:
        rows = [
            {
                "id": key.id,
                "prefix": key.prefix,
                "name": key.name,
                "project": project,
                "role": key.role,
                "created": _shown(key.created_at),
                "last_used": _shown(key.last_used_at),
                "revoked": _shown(key.revoked_at),
            }
            for key, project in keys.every(session)
        ]
    if as_json:
        print_json(rows)
    else:
        headings = ("id", "key", "name", "project", "role", "created", "last used", "revoked")
        print_table(headings, [tuple(row.values()) for row in rows])


@keys_app.command("revoke")
@told
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `pairtune keys list`.")],
    as_json: AsJson = False,
) -> None:
    """End a key: it changes nothing any more, and reads for a second at most."""
    with database_session() as session:
        if not keys.revoke(session, key_id):
            raise CommandError(f"There is no valid key {key_id}: see `pairtune keys list`.")
    answer({"id": key_id, "revoked": True}, f"{key_id} is revoked.", as_json)


def _shown(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
