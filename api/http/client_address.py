"""Whom a request comes from: the address that logs name and that anonymous requests are counted by."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

from starlette.types import Scope

IPV6_HOST_BITS = 64  # a customer gets a whole /64, and may send each request from another address of it


def client_address(scope: Scope) -> str:
    """Of the connection, or as a trusted proxy has given it; "unknown" on a unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def client_network(scope: Scope) -> str:
    """What one client can send from: its IPv4 address, or its IPv6 network."""
    address = client_address(scope)
    try:
        parsed = ip_address(address)
    except ValueError:  # a proxy's text, such as "unknown"
        return address[:64]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), IPV6_HOST_BITS), strict=False))
