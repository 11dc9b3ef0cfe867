"""No request rate on a loopback address: only the user of this machine reaches it."""

from __future__ import annotations

from store.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def unlimited(settings: Settings) -> bool:
    """Whether `up` lets every key send as many requests as it likes."""
    return settings.host in LOOPBACK and "requests_per_minute" not in settings.model_fields_set
