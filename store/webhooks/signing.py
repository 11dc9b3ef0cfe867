"""Webhooks' signing secrets, derived whenever they are needed and stored nowhere.

A secret is HMAC-SHA256 of the endpoint's id and the secret's number under one key of the deployment, which lies
outside the database: PAIRTUNE_WEBHOOKS_KEY, or HOME/webhooks.key. Who reads the database alone, or a dump of it, can
sign nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.settings import Settings


@dataclass(frozen=True, repr=False)
class SigningKey:
    """``check`` names the key without revealing it."""

    _key: bytes

    def secret(self, endpoint_id: str, version: int) -> bytes:
        """32 bytes."""
        return self._derived(f"secret {endpoint_id} {version}")

    @property
    def check(self) -> str:
        return self._derived("check").hex()[:16]

    def _derived(self, what: str) -> bytes:
        return hmac.new(self._key, what.encode(), hashlib.sha256).digest()


def signing_key(settings: Settings) -> SigningKey:
    """The deployment's; where no setting gives it, the first process that needs HOME/webhooks.key makes it."""
    if settings.webhooks_key is not None:
        return SigningKey(settings.webhooks_key.get_secret_value().encode())
    path = settings.home.resolve() / "webhooks.key"
    if not path.exists():
        _make(path)
    return SigningKey(path.read_text(encoding="ascii").strip().encode())


def shown(secret: bytes) -> str:
    """As Standard Webhooks writes it, and the SDKs take it."""
    return "whsec_" + base64.b64encode(secret).decode()


def signature(secret: bytes, *, event_id: str, timestamp: int, body: str) -> str:
    """``v1,<base64 of HMAC-SHA256>`` over id, timestamp (unix seconds) and body, joined by dots."""
    signed = f"{event_id}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _make(path: Path) -> None:
    """Whole or not at all, readable by its owner alone; of several that make it at once the first one wins."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    with suppress(FileExistsError):
        path.hardlink_to(partial)
    partial.unlink()
