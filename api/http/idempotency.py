"""``Idempotency-Key``: a create that a client may send again, and that happens once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Header
from fastapi.responses import JSONResponse
from pydantic import BaseModel, StringConstraints

from api.http.transactions import UnitOfWork
from store.tables.base import Json
from store.tenants import idempotency
from store.tenants.api_keys import Principal

Created = TypeVar("Created", bound=BaseModel)
IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] | None,
    Header(
        description="Any name of this request, such as a UUID. Sent again within 24 hours with the same body, it is "
        "answered as it was, and nothing is made twice; with another body the answer is 422."
    ),
]
REPLAYED = {"idempotent-replayed": "true"}


@dataclass(frozen=True)
class OmittedField:
    """A field that the stored answer must not hold, and how it is computed from the others."""

    name: str
    restore: Callable[[Json], str]


def once(
    work: UnitOfWork,
    caller: Principal,
    key: str | None,
    operation: str,
    body: str,
    create: Callable[[], Created],
    omitted: OmittedField | None = None,
) -> Created | JSONResponse:
    """``make``'s answer, or the one that this key got before. ``body`` is a digest of what was sent.

    Raises IdempotencyInFlight, IdempotencyMismatch.
    """
    replayed = replay(work, caller, key, operation, body, omitted)
    if replayed is not None:
        return replayed
    created = create()
    if key is not None:
        answer = created.model_dump(mode="json", exclude={omitted.name} if omitted is not None else None)
        idempotency.save(work.session, caller.key_id, key, request=_request(operation, body), answer=answer)
    return created


def replay(
    work: UnitOfWork, caller: Principal, key: str | None, operation: str, body: str, omitted: OmittedField | None = None
) -> JSONResponse | None:
    """The answer that this key got before, if any. Raises as ``once`` does."""
    if key is None:
        return None
    answered = idempotency.find_answer(work.session, caller.key_id, key, request=_request(operation, body))
    if answered is None:
        return None
    restored = {omitted.name: omitted.restore(answered)} if omitted is not None else {}
    return JSONResponse(answered | restored, headers=REPLAYED)


def _request(operation: str, body: str) -> str:
    return hashlib.sha256(f"{operation} {body}".encode()).hexdigest()
