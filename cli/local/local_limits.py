"""No request rates on a loopback address: only the user of this machine reaches it."""

from __future__ import annotations

from store.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")
RATES = ("requests_per_minute", "anonymous_per_minute")


def unlimited(settings: Settings, rate: str = "requests_per_minute") -> bool:
    """Whether `up` lets every key send as many requests as it likes, or every client without a key."""
    return settings.host in LOOPBACK and rate not in settings.model_fields_set


def without_rates(settings: Settings) -> dict[str, str]:
    """For the environment of the services of `up`: the rates that they do not limit."""
    return {f"PAIRTUNE_{rate.upper()}": "none" for rate in RATES if unlimited(settings, rate)}
