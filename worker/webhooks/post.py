"""One POST to a receiver that nobody vouches for: to a given address, in a given time, reading little of the answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import httpx

from store.webhooks.egress import Target

ANSWER_BYTES = 1024  # of the answer's body
ADDRESSES = 4  # of a host that has many, before it is taken not to answer


@dataclass(frozen=True)
class Answer:
    """``body`` is the beginning of it, as text that PostgreSQL takes."""

    status: int
    body: str


class NoAnswer(Exception):
    """The receiver could not be reached, or did not answer in time; ``str`` of it is fit for a user."""


def post(target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: str, *, seconds: float) -> Answer:
    """To the first of ``addresses`` that takes the connection; ``seconds`` bound all of it. Raises NoAnswer."""
    return asyncio.run(_in_time(target, addresses[:ADDRESSES], headers, body.encode(), seconds))


async def _in_time(
    target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: bytes, seconds: float
) -> Answer:
    # One clock over everything: a receiver that sends a byte now and then would outlast any limit on a single read.
    try:
        async with asyncio.timeout(seconds):
            return await _post(target, addresses, headers, body, seconds)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise NoAnswer(f"No answer within {seconds:g} seconds.") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NoAnswer(f"No answer: {str(error) or type(error).__name__}.") from error


async def _post(
    target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: bytes, seconds: float
) -> Answer:
    # trust_env: a proxy from the environment would resolve the name once more, by itself.
    async with httpx.AsyncClient(verify=_tls(), trust_env=False, follow_redirects=False, timeout=seconds) as client:
        for address in addresses[:-1]:
            try:
                return await _post_to(client, target, address, headers, body)
            except httpx.ConnectError:
                continue
        return await _post_to(client, target, addresses[-1], headers, body)


async def _post_to(
    client: httpx.AsyncClient, target: Target, address: str, headers: Mapping[str, str], body: bytes
) -> Answer:
    """The address is in the URL, where nothing resolves it again; Host, SNI and certificate are the name's."""
    url = httpx.URL(scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode("ascii"))
    named = {**headers, "host": target.authority}
    async with client.stream(
        "POST", url, headers=named, content=body, extensions={"sni_hostname": target.host}
    ) as response:
        return Answer(response.status_code, await _beginning(response))


async def _beginning(response: httpx.Response) -> str:
    """Undecoded, so that a small answer does not unpack into a large one; the connection is closed on the rest."""
    read = b""
    async for chunk in response.aiter_raw(ANSWER_BYTES):
        read += chunk
        if len(read) >= ANSWER_BYTES:
            break
    return read[:ANSWER_BYTES].decode(errors="replace").replace("\0", "\ufffd")


@cache
def _tls() -> ssl.SSLContext:
    """SSL_CERT_FILE holds: an operator whose receivers are internal names his own authority there."""
    return httpx.create_ssl_context()
