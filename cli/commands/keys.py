"""``pairtune keys``: API keys, straight in the database."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.command_options import AsJson, reports_errors
from cli.errors import CommandError
from cli.output import answer, print_json, print_table, say
from store.roles import Role

keys_app = typer.Typer(no_args_is_help=True, help="API keys; while `up` runs, or with PAIRTUNE_DATABASE_URL.")


@keys_app.command("create")
@reports_errors
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    project: Annotated[
        str | None, typer.Option(help="Made if there is none of this name; `default` without it.")
    ] = None,
    role: Annotated[Role, typer.Option(help="What it may do: read, also change, also manage webhooks.")] = Role.MEMBER,
    as_json: AsJson = False,
) -> None:
    """Print a new key. It is shown this once."""
    from cli.local import tenants

    created = tenants.new_key(name, project, role)
    if as_json:
        print_json(created)
        return
    key_id = created["id"]
    say(f"{key_id} of project {created['project']}, {role}. `pairtune keys revoke {key_id}` ends it. Shown this once:")
    typer.echo(created["key"])


@keys_app.command("list")
@reports_errors
def list_keys(as_json: AsJson = False) -> None:
    """All keys by their first characters: the rest is stored nowhere."""
    from cli.local import tenants

    rows = tenants.every_key()
    if as_json:
        print_json(rows)
    else:
        headings = ("id", "key", "name", "project", "role", "created", "last used", "revoked")
        print_table(headings, [tuple(row.values()) for row in rows])


@keys_app.command("revoke")
@reports_errors
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `pairtune keys list`.")],
    as_json: AsJson = False,
) -> None:
    """End a key: it changes nothing any more, and reads for a second at most."""
    from cli.local import tenants

    if not tenants.revoked(key_id):
        raise CommandError(f"There is no valid key {key_id}: see `pairtune keys list`.")
    answer({"id": key_id, "revoked": True}, f"{key_id} is revoked.", as_json)
