"""``pairtune doctor``: whether everything that a deployment needs is there, and what to do where it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import httpx
import typer
from obstore.exceptions import BaseError
from sqlalchemy.exc import SQLAlchemyError

from cli.asked import AsJson, told
from cli.configured import settings
from cli.errors import CommandError
from cli.output import console, print_json
from cli.server import connected
from migrations.upgrade import differences
from store.bases import read_bases
from store.blobs import Blobs
from store.errors import BasesInvalid
from store.hints import Hints
from store.settings import Settings

GIB = 2**30
LITTLE_DISK = 10 * GIB  # a base, a data set, their cache and a few checkpoints
DEVICE = """
import torch
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(index)
        print(f"{of.name}, {of.total_memory / 2**30:.0f} GiB")
else:
    print("none: training runs on the CPU, which is slow but for small models")
"""
MARKS = {"ok": "[green]ok[/green]", "warning": "[yellow]look[/yellow]", "error": "[red]mend[/red]"}


@dataclass(frozen=True)
class Checked:
    """``cure`` says what to do; empty where all is well."""

    name: str
    state: Literal["ok", "warning", "error"]
    found: str
    cure: str = ""


@told
def doctor(as_json: AsJson = False) -> None:
    """Check device, database, broker, storage, bases, disk and API; the exit code is 1 if something needs mending."""
    configured = settings()
    checks: list[Callable[[Settings], Checked]] = [device, database, broker, storage, bases, disk, api]
    results = [check(configured) for check in checks]
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


def device(_: Settings) -> Checked:
    """In a process of its own: importing torch takes seconds and memory."""
    ran = subprocess.run([sys.executable, "-c", DEVICE], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        last = ran.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return Checked("device", "error", f"torch cannot be used: {last[0]}", "Install pairtune anew from its lock.")
    found = ", ".join(ran.stdout.strip().splitlines())
    return Checked("device", "warning" if found.startswith("none") else "ok", found)


def database(configured: Settings) -> Checked:
    if configured.database_url is None:
        return Checked("database", "ok", "embedded: `pairtune up` starts its own PostgreSQL")
    try:
        changes = differences(configured.database_url)
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        return Checked("database", "error", reason, "Start PostgreSQL, or correct PAIRTUNE_DATABASE_URL.")
    if changes:
        return Checked("database", "error", "its tables are not this version's", "Run `python -m migrations`.")
    return Checked("database", "ok", "answers, and has this version's tables")


def broker(configured: Settings) -> Checked:
    if configured.broker_url is None:
        return Checked("broker", "ok", "embedded: `pairtune up` starts its own Valkey")
    if Hints(configured.broker_url).reachable():
        return Checked("broker", "ok", "answers")
    return Checked("broker", "error", "does not answer", "Start Redis or Valkey, or correct PAIRTUNE_BROKER_URL.")


def storage(configured: Settings) -> Checked:
    url = configured.effective_blob_url
    try:
        blobs = Blobs(url)
        stored = blobs.put_bytes(b"pairtune doctor was here\n")
        readable = blobs.read(stored.sha256) == b"pairtune doctor was here\n"
    except (BaseError, OSError, ValueError) as error:
        return Checked("storage", "error", f"{url}: {error}", "Correct PAIRTUNE_BLOB_URL, or its rights.")
    if not readable:
        return Checked("storage", "error", f"{url} gives other bytes than were written", "Check the object store.")
    return Checked("storage", "ok", f"{url} can be written and read")


def bases(configured: Settings) -> Checked:
    try:
        found = read_bases(configured.bases_file)
    except BasesInvalid as error:
        return Checked("bases", "error", str(error), "Correct the file that PAIRTUNE_BASES_FILE names.")
    return Checked("bases", "ok", f"{', '.join(sorted(found))} (in {configured.bases_file})")


def disk(configured: Settings) -> Checked:
    folder = configured.home.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.0f} GiB free at {folder}"
    if free < LITTLE_DISK:
        return Checked("disk", "warning", found, f"{LITTLE_DISK // GIB} GiB or more is comfortable: make room.")
    return Checked("disk", "ok", found)


def api(configured: Settings) -> Checked:
    url = configured.effective_url
    try:
        httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
        with connected(configured) as server:
            server.get("/v1/models")
    except httpx.HTTPError as error:
        return Checked("api", "warning", f"{url}: {error}", "Start `pairtune up`, or set PAIRTUNE_URL.")
    except CommandError as error:
        return Checked("api", "error", str(error), "Set PAIRTUNE_API_KEY to a valid key.")
    return Checked("api", "ok", f"{url} answers and takes the key")
