from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from store import keys
from store.database import Sessions
from store.errors import InvalidKey
from store.models import ApiKey

pytestmark = pytest.mark.integration


def test_a_key_names_its_project_until_it_is_revoked(sessions: Sessions, project_id: str) -> None:
    with sessions.begin() as session:
        secret = keys.create(session, keys.ensure_project(session, "first"), "mine")
        caller = keys.authenticate(session, secret)
        assert caller.project_id == project_id
        with pytest.raises(InvalidKey):
            keys.authenticate(session, secret + "x")
        assert keys.revoke(session, caller.key_id)
        assert not keys.revoke(session, caller.key_id)
        with pytest.raises(InvalidKey):
            keys.authenticate(session, secret)


def test_only_a_digest_of_the_key_is_kept(sessions: Sessions, project_id: str) -> None:
    with sessions.begin() as session:
        secret = keys.create(session, keys.ensure_project(session, "first"), "digest")
        row = session.scalars(select(ApiKey).where(ApiKey.name == "digest")).one()
    assert row.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.startswith(row.prefix)
    assert len(secret) - len(row.prefix) >= 32
