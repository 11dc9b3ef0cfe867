"""Where webhooks may go: what a URL may look like, and what its host may resolve to."""

from __future__ import annotations

import socket

import pytest

from store.errors import WebhookUrlNotAllowed
from store.settings import Settings
from store.webhooks.egress import Target, addresses, parse

pytestmark = pytest.mark.unit
STRICT = Settings()
LOCAL = Settings(webhooks_allow_http=True, webhooks_allow_private=True)

NEVER = [
    *("169.254.169.254", "fe80::1", "224.0.0.1", "239.1.2.3", "ff02::1", "0.0.0.0", "::"),  # noqa: S104
    *("240.0.0.1", "255.255.255.255", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe"),
    *("2002:7f00:1::", "2001:0:1::", "192.88.99.1", "192.0.0.8"),
]
PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "100.127.255.255", "fc00::1", "fd12:3456::1", "198.18.0.1", "203.0.113.1", "2001:db8::1"),
]
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "93.184.216.34", "2606:4700:4700::1111"]


def resolving(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    def answer(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        families = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in found]
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in families]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def allowed(url: str, settings: Settings) -> bool:
    try:
        addresses(parse(url, settings), settings)
    except WebhookUrlNotAllowed:
        return False
    return True


@pytest.mark.parametrize("address", [*NEVER, *PRIVATE])
def test_an_address_that_is_not_public_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, address)
    assert not allowed("https://hooks.example.com/", STRICT)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_taken(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, address)
    assert addresses(parse("https://hooks.example.com/", STRICT), STRICT) == [address]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_taken_where_the_operator_allows_it(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, address)
    assert allowed("https://hooks.example.com/", LOCAL)


@pytest.mark.parametrize("address", NEVER)
def test_a_link_local_or_disguised_address_is_refused_whatever_the_operator_allows(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, address)
    assert not allowed("https://hooks.example.com/", LOCAL)


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "8.8.8.8", "10.0.0.1")
    assert not allowed("https://hooks.example.com/", STRICT)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]"])
def test_another_way_to_write_the_loopback_address_is_refused(host: str) -> None:
    assert not allowed(f"https://{host}/", STRICT)


def test_a_host_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(WebhookUrlNotAllowed, match="cannot be resolved"):
        addresses(parse("https://nowhere.invalid/", STRICT), STRICT)
    with pytest.raises(WebhookUrlNotAllowed, match="cannot be resolved"):
        addresses(parse(f"https://{'a' * 64}.example.com/", STRICT), STRICT)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "ftp://example.com/", "//example.com/", "example.com", "https://", "https:///path"),
        *("https://user@example.com/", "https://user:pw@example.com/", "https://@example.com/"),
        *(
            "https://example.com/#part",
            "https://example.com:0/",
            "https://example.com:65536/",
            "https://example.com:x/",
        ),
        *("https://exa mple.com/", "https://example.com\\@10.0.0.1/", "https://example.com/\r\nx: y", "https://ü.de/"),
        *("https://[fe80::1%25eth0]/", "https://[::1/", "https://exa%6dple.com/", f"https://example.com/{'a' * 2048}"),
    ],
)
def test_a_url_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(WebhookUrlNotAllowed):
        parse(url, STRICT)


PARSED: list[tuple[str, Target, str]] = [
    ("https://example.com", Target("https", "example.com", 443, "/"), "example.com"),
    ("https://Example.com:443/a?b=c", Target("https", "example.com", 443, "/a?b=c"), "example.com"),
    ("https://example.com:8443/%20", Target("https", "example.com", 8443, "/%20"), "example.com:8443"),
    ("https://[2606:4700::1]:8443/", Target("https", "2606:4700::1", 8443, "/"), "[2606:4700::1]:8443"),
]


@pytest.mark.parametrize(("url", "target", "authority"), PARSED)
def test_a_url_is_taken_apart(url: str, target: Target, authority: str) -> None:
    assert parse(url, STRICT) == target
    assert target.authority == authority


def test_http_is_taken_where_the_operator_allows_it() -> None:
    assert parse("http://example.com/", LOCAL) == Target("http", "example.com", 80, "/")
