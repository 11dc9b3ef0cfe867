"""Where a webhook may go: URLs that tenants give must not reach the operator's own network.

The host is resolved once a sending, every address it has is judged, and the sender connects to one of exactly these:
a name that answers something else a moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from store.errors import WebhookUrlNotAllowed
from store.settings import Settings

LONGEST = 2048
PRINTABLE = re.compile(r"[\x21-\x7e]+")
HOST = re.compile(r"[A-Za-z0-9._:-]+")  # names, IPv4, and IPv6 without its brackets and without a zone
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Python calls some of these global: translation to IPv4, 6to4 with its relays, Teredo, IETF protocol assignments.
DETOURS = [
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16")
]


@dataclass(frozen=True)
class Target:
    """``path`` holds the query too; ``host`` has no brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def parse(url: str, settings: Settings) -> Target:
    """Raise WebhookUrlNotAllowed for what is no URL to post to; nothing is resolved here."""
    if len(url) > LONGEST or not PRINTABLE.fullmatch(url) or "\\" in url:
        raise WebhookUrlNotAllowed(f"should be at most {LONGEST} printable ASCII characters, without a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookUrlNotAllowed("is no URL") from error
    _check_form(parts, settings)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname or "", _default_port(parts.scheme) if port is None else port, path)


def addresses(target: Target, settings: Settings) -> list[str]:
    """What the host resolves to now. Raises WebhookUrlNotAllowed unless all of it may be connected to."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WebhookUrlNotAllowed("names a host that cannot be resolved") from error
    resolved = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(_allowed(ipaddress.ip_address(address), settings) for address in resolved):
        # Which address is not said: a tenant could map the operator's names by it.
        raise WebhookUrlNotAllowed("leads to an address that is private, local or reserved")
    return resolved


def _check_form(parts: SplitResult, settings: Settings) -> None:
    schemes = ("https", "http") if settings.webhooks_allow_http else ("https",)
    if parts.scheme not in schemes:
        raise WebhookUrlNotAllowed(f"should begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise WebhookUrlNotAllowed("should have no user, password or fragment")
    if not HOST.fullmatch(parts.hostname or "") or parts.port == 0:
        raise WebhookUrlNotAllowed("should name a host, and a port from 1 to 65535 if any")


def _allowed(address: Address, settings: Settings) -> bool:
    if address.is_link_local or address.is_multicast or address.is_unspecified or _is_detour(address):
        return False  # link-local holds the metadata services of clouds, whatever else is allowed
    if settings.webhooks_allow_private:
        return address.is_loopback or not address.is_reserved
    return address.is_global and not address.is_reserved


def _is_detour(address: Address) -> bool:
    """Another way of writing an address, IPv4 within IPv6 above all, that would have to be judged in its place."""
    mapped = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.is_site_local)
    return bool(mapped) or any(address in network for network in DETOURS)


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
