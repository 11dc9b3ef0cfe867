"""What a key may do, least first: each role may do all that the ones before it may."""

from __future__ import annotations

from enum import StrEnum

from store.errors import InsufficientRole


class Role(StrEnum):
    READ_ONLY = "read-only"
    MEMBER = "member"
    ADMIN = "admin"


_RANKS = {role: rank for rank, role in enumerate(Role)}


def require(held: Role, needed: Role) -> None:
    """Raise InsufficientRole for a role that does not reach."""
    if _RANKS[held] < _RANKS[needed]:
        raise InsufficientRole(held, needed)
