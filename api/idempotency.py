"""``Idempotency-Key``: a create that a client may send again, and that happens once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header
from fastapi.responses import JSONResponse
from pydantic import BaseModel, StringConstraints

from api.transactions import Work
from store import idempotency
from store.keys import Principal

Made = TypeVar("Made", bound=BaseModel)
IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] | None,
    Header(
        description="Any name of this request, such as a UUID. Sent again within 24 hours with the same body, it is "
        "answered as it was, and nothing is made twice; with another body it is refused (422)."
    ),
]
REPLAYED = {"idempotent-replayed": "true"}


def once(
    work: Work, caller: Principal, key: str | None, operation: str, body: str, make: Callable[[], Made]
) -> Made | JSONResponse:
    """``make``'s answer, or the one that this key got before. ``body`` is a digest of what was sent.

    Raises IdempotencyInFlight, IdempotencyMismatch.
    """
    if key is None:
        return make()
    request = hashlib.sha256(f"{operation} {body}".encode()).hexdigest()
    answered = idempotency.earlier(work.session, caller.key_id, key, request=request)
    if answered is not None:
        return JSONResponse(answered, headers=REPLAYED)
    made = make()
    idempotency.keep(work.session, caller.key_id, key, request=request, answer=made.model_dump(mode="json"))
    return made
