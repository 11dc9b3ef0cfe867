"""The server's memory does not grow with what is uploaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from benchmarks.uploads.traffic import Server, peak, restart_peak, send_directly, send_in_parts
from tests.api.serving import serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc"),
]
MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("memory"), postgres_url, valkey_url) as live:
        yield Server(live.port, live.pid, live.tenant.api_key)


@pytest.mark.parametrize("send", [send_directly, send_in_parts])
def test_256_mib_grow_the_peak_by_less_than_16(server: Server, send: Callable[[Server, int, int], str]) -> None:
    send(server, MIB, 1)  # what the first request loads is not the upload's
    before = restart_peak(server)
    send(server, 256 * MIB, 2 if send is send_directly else 3)
    assert peak(server) - before < 16 * MIB
