"""What `pairtune doctor` checks: that everything which a deployment needs is there, and what to do where it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import httpx
import obstore
from kombu.utils.url import maybe_sanitize_url
from obstore.exceptions import BaseError
from obstore.store import from_url
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from sqlalchemy.exc import SQLAlchemyError

from cli.client.server import connected
from cli.errors import CommandError, NoKey, RequestFailed
from cli.local.embedded import running_postgres, running_valkey
from migrations.revision import DatabaseTooNew, newer_revision
from migrations.upgrade import differences
from store.base_models import read_bases
from store.blobs.blobs import reason_of
from store.database import unusable
from store.errors import BasesInvalid
from store.settings import Settings
from store.tenants import rate_limits

GIB = 2**30
PROBE_TIMEOUT = timedelta(seconds=5)
BROKER_SECONDS = 5.0  # for an answer of the broker
LITTLE_DISK = 10 * GIB  # a base, a dataset, their cache and a few checkpoints
DEVICE = """
import torch
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(index)
        print(f"{of.name}, {of.total_memory / 2**30:.0f} GiB")
else:
    print("none: training runs on the CPU, which is slow except for small models")
"""


@dataclass(frozen=True)
class Checked:
    """``cure`` says what to do; empty where all is well."""

    name: str
    state: Literal["ok", "warning", "error"]
    found: str
    cure: str = ""


def device(_: Settings) -> Checked:
    """In a process of its own: importing torch takes seconds and memory."""
    ran = subprocess.run([sys.executable, "-c", DEVICE], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        last = ran.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return Checked(
            "device", "error", f"torch cannot be used: {last[0]}", "Reinstall pairtune from requirements.lock."
        )
    found = ", ".join(ran.stdout.strip().splitlines())
    return Checked("device", "warning" if found.startswith("none") else "ok", found)


def database(configured: Settings) -> Checked:
    url = configured.database_url or running_postgres(configured.home.resolve())
    if url is None:
        return Checked("database", "ok", "embedded: `pairtune up` starts its own PostgreSQL")
    try:
        if newer_revision(url) is not None:
            return Checked("database", "ok", "answers; a newer version has migrated it, and this one can use it")
        changes = differences(url)
    except SQLAlchemyError as error:
        reason = unusable(error) or str(error).splitlines()[0]
        return Checked("database", "error", reason, "Start PostgreSQL, or correct PAIRTUNE_DATABASE_URL.")
    except DatabaseTooNew as error:
        return Checked("database", "error", "a newer version has migrated it", str(error))
    if changes:
        return Checked("database", "error", "its tables do not match this version", "Run `python -m migrations`.")
    return Checked("database", "ok", "answers, and has this version's tables")


def broker(configured: Settings) -> Checked:
    url = configured.broker_url or running_valkey(configured.home.resolve())
    if url is None:
        return Checked("broker", "ok", "embedded: `pairtune up` starts its own Valkey")
    problem = broker_problem(url)
    if problem is None:
        return Checked("broker", "ok", "answers")
    return Checked("broker", "error", *problem)


def broker_problem(url: str) -> tuple[str, str] | None:
    """Why the broker cannot be used, and what to do; None where it answers."""
    try:
        client, shown = rate_limits.connect(url, BROKER_SECONDS), maybe_sanitize_url(url)  # without its password
    except (KeyError, ValueError):  # the reason may hold a piece of the password
        return "it is not the URL of a broker", "Correct PAIRTUNE_BROKER_URL: it should be like redis://host:6379/0."
    with client:
        try:
            client.ping()
        except (AuthenticationError, NoPermissionError):
            return f"{shown} refuses the password or the user", "Correct the password in PAIRTUNE_BROKER_URL."
        except RedisError:
            cure = "Start Redis or Valkey, or correct PAIRTUNE_BROKER_URL."
            return f"{shown} does not answer", cure
    return None


def storage(configured: Settings) -> Checked:
    """Leaves nothing behind."""
    url = configured.effective_blob_url
    try:
        readable = probe_store(url)
    except (BaseError, OSError, ValueError) as error:
        return Checked("storage", "error", f"{url}: {reason_of(error)}", "Correct PAIRTUNE_BLOB_URL, or its rights.")
    if not readable:
        return Checked("storage", "error", f"{url} returns other bytes than were written", "Check the object store.")
    return Checked("storage", "ok", f"{url} can be written and read")


def probe_store(url: str) -> bool:
    """Whether the store gives the bytes that it took. Raises BaseError, OSError, ValueError."""
    content = b"pairtune doctor was here\n"
    if url.startswith("file://"):
        with TemporaryFile(dir=_nearest(Path(url.removeprefix("file://")))) as probe:
            probe.write(content)
            probe.seek(0)  # what was written reaches the disk, or fails
            return probe.read() == content
    store = from_url(url, retry_config={"max_retries": 1, "retry_timeout": PROBE_TIMEOUT})
    name = f"doctor-{uuid.uuid4().hex}"
    obstore.put(store, name, content)
    try:
        return bytes(obstore.get(store, name).bytes()) == content
    finally:
        obstore.delete(store, name)


def bases(configured: Settings) -> Checked:
    try:
        found = read_bases(configured.bases_file)
    except BasesInvalid as error:
        return Checked("bases", "error", str(error), "Correct the file that PAIRTUNE_BASES_FILE names.")
    return Checked("bases", "ok", f"{', '.join(sorted(found))} (in {configured.bases_file})")


def disk(configured: Settings) -> Checked:
    folder = _nearest(configured.home.resolve())
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < configured.min_free_bytes:
        min_free = f"{configured.min_free_bytes / GIB:.1f} GiB"
        return Checked("disk", "error", found, f"Free disk space: below {min_free} the API takes no upload and no job.")
    if free < LITTLE_DISK:
        return Checked("disk", "warning", found, f"{LITTLE_DISK // GIB} GiB or more is recommended: free disk space.")
    return Checked("disk", "ok", found)


def _nearest(path: Path) -> Path:
    """The directory itself, or the one in which it will be made."""
    while not path.exists():
        path = path.parent
    return path


def api(configured: Settings) -> Checked:
    url = configured.effective_url
    try:
        httpx.get(f"{url}/healthz", timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Checked("api", "warning", f"{url}: {error}", "Start `pairtune up`, or set PAIRTUNE_URL.")
    try:
        with connected(configured) as server:
            server.get("/v1/models", limit=1)
    except RequestFailed as error:
        cure = "Set PAIRTUNE_API_KEY to a valid key." if error.status == 401 else "See the API's log."
        return Checked("api", "error", str(error), cure)
    except NoKey as error:
        return Checked("api", "error", "no API key", str(error))
    except CommandError as error:
        return Checked("api", "error", str(error), "Correct PAIRTUNE_URL.")
    return Checked("api", "ok", f"{url} answers and takes the key")


CHECKS: list[Callable[[Settings], Checked]] = [device, database, broker, storage, bases, disk, api]
