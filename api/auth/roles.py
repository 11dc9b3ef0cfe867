"""Which role a request needs, by method and path: judged in front of every route, so that no new one escapes it."""

from __future__ import annotations

from store.roles import Role

READING = frozenset({"GET", "HEAD", "OPTIONS"})
# Who may send a project's events elsewhere, and see the secrets that sign them, decides over more than its jobs.
FOR_ADMINS = ("/v1/webhooks",)


def needed_role(method: str, path: str) -> Role:
    if method in READING:
        return Role.READ_ONLY
    if any(path == prefix or path.startswith(f"{prefix}/") for prefix in FOR_ADMINS):
        return Role.ADMIN
    return Role.MEMBER
