"""What is left of a key's rate, in OpenAI's headers."""

from __future__ import annotations


def rate_headers(burst: int, remaining: int, full_in: float) -> dict[str, str]:
    """``burst``: requests that may come at once; ``full_in``: seconds until as many may come again."""
    return {
        "x-ratelimit-limit-requests": str(burst),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": _duration(full_in),
    }


def _duration(seconds: float) -> str:
    """As OpenAI writes it: ``37ms``, ``1.25s``, ``6m0s``."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{int(rest)}s" if minutes else f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
