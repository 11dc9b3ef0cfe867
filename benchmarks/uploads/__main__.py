"""``python -m benchmarks.uploads [--gib 4] [--directory DIR]``: a large upload, whole and in parts, against uvicorn.

Prints the growth of the server's peak resident memory, the seconds, and how often each byte was written to the disk;
writes benchmarks/results/uploads.json. Needs twice the upload on disk, which it checks first and frees afterwards.
Linux.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.uploads.traffic import Server, peak, restart_peak, send_directly, send_in_parts
from tests import servers
from tests.api.serving import serving

RESULT = Path("benchmarks/results/uploads.json")
MIB, GIB = 2**20, 2**30
MUST_REACH = 64 * MIB
WAYS: dict[str, Callable[[Server, int, int], str]] = {"in one request": send_directly, "in parts": send_in_parts}


@dataclass(frozen=True)
class Figure:
    way: str
    size_bytes: int
    growth_bytes: int
    seconds: float
    writes_per_byte: float


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--directory", type=Path, help="where the server keeps its files; a temporary one by default")
    options = parser.parse_args(arguments)
    size = int(options.gib * GIB)
    figures = [_measured_afresh(way, size, options.directory) for way in WAYS]
    for figure in figures:
        print(
            f"{figure.size_bytes / GIB:g} GiB {figure.way}: peak memory +{figure.growth_bytes / MIB:.1f} MiB, "
            f"{figure.seconds:.1f} s ({figure.size_bytes / MIB / figure.seconds:.0f} MiB/s), "
            f"each byte written {figure.writes_per_byte:.2f} times"
        )
    RESULT.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0 if all(figure.growth_bytes < MUST_REACH for figure in figures) else 1


def _measured_afresh(way: str, size: int, directory: Path | None) -> Figure:
    """A server of its own, so that neither finds the other's memory or bytes."""
    with tempfile.TemporaryDirectory(dir=directory) as home, servers.postgres() as database, servers.valkey() as broker:
        free = shutil.disk_usage(home).free
        if free < 2 * size + GIB:
            raise SystemExit(f"{home} has {free / GIB:.0f} GiB free; {2 * size / GIB + 1:.0f} GiB are needed.")
        with serving(Path(home), database, broker) as live:
            return _measured(Server(live.port, live.pid, live.tenant.api_key), way, size)


def _measured(server: Server, way: str, size: int) -> Figure:
    send = WAYS[way]
    send(server, MIB, 1)  # what the first request loads is not the upload's
    before, written, started = restart_peak(server), _written(server), time.perf_counter()
    send(server, size, 2)
    seconds = time.perf_counter() - started
    return Figure(way, size, peak(server) - before, seconds, (_written(server) - written) / size)


def _written(server: Server) -> int:
    found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{server.pid}/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
