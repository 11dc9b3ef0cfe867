"""A client that costs little: raw sockets, one request after the other on each, answers read by their length."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Loaded:
    """``seconds`` of every answer, in any order."""

    elapsed: float = 0.0
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed

    def quantile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def load(port: int, path: str, key: str, *, connections: int, seconds: float) -> Loaded:
    """GET ``path`` over so many connections for so long. Raises AssertionError on any answer but 200."""
    return asyncio.run(_load(port, path, key, connections, seconds))


async def _load(port: int, path: str, key: str, connections: int, seconds: float) -> Loaded:
    found = Loaded()
    started = time.monotonic()
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    await asyncio.gather(*(_one(port, request, started + seconds, found) for _ in range(connections)))
    found.elapsed = time.monotonic() - started
    return found


async def _one(port: int, request: bytes, ends: float, found: Loaded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (started := time.monotonic()) < ends:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        found.seconds.append(time.monotonic() - started)
    writer.close()


async def follow(port: int, path: str, key: str, count: int, seconds: float) -> int:
    """Hold ``count`` event streams open for so long; returns how many were still open at the end."""
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    streams = await asyncio.gather(*(_opened(port, request) for _ in range(count)))
    await asyncio.sleep(seconds)
    still = sum(not reader.at_eof() for reader, _ in streams)
    for _, writer in streams:
        writer.close()
    return still


async def _opened(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return reader, writer
