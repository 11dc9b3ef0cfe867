from __future__ import annotations

import time

import pytest

from api.caches.principals import CACHE_SECONDS, Principals
from store.roles import Role
from store.tenants.api_keys import Principal
from store.tenants.limits import UNLIMITED

pytestmark = pytest.mark.unit
PRINCIPAL = Principal("key-1", "proj-1", Role.MEMBER, UNLIMITED, use_is_noted=True)


def test_a_key_is_remembered_from_the_moment_it_was_read_and_not_from_the_answer() -> None:
    get = Principals()
    get.remember("quick", PRINCIPAL, time.monotonic())
    get.remember("slow", PRINCIPAL, time.monotonic() - CACHE_SECONDS)
    assert get.get("quick") is PRINCIPAL
    assert get.get("slow") is None
    assert get.get("another") is None
