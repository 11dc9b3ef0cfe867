"""Whose action an entry of the audit log reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.dependencies import Caller
from api.http.client_address import client_address
from store.tenants.audit import Actor


async def actor(request: Request, caller: Caller) -> Actor:
    return Actor(caller.project_id, key_id=caller.key_id, address=client_address(request.scope))


By = Annotated[Actor, Depends(actor)]
