from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store.database import Sessions
from store.errors import InvalidKey
from store.roles import Role
from store.tables.project import ApiKey
from store.tenants import api_keys

pytestmark = pytest.mark.integration


def test_a_key_names_its_project_until_it_is_revoked(sessions: Sessions, project_id: str) -> None:
    with sessions.begin() as session:
        secret = api_keys.create(session, api_keys.ensure_project(session, "first"), "mine")
        caller = api_keys.authenticate(session, secret)
        assert caller.project_id == project_id
        with pytest.raises(InvalidKey):
            api_keys.authenticate(session, secret + "x")
        assert api_keys.revoke(session, caller.key_id)
        assert not api_keys.revoke(session, caller.key_id)
        with pytest.raises(InvalidKey):
            api_keys.authenticate(session, secret)


def test_the_last_use_is_noted_once_a_minute(sessions: Sessions, project_id: str) -> None:
    def last_used(session: Session) -> datetime | None:
        session.expire_all()
        return session.scalars(select(ApiKey).where(ApiKey.name == "used")).one().last_used_at

    with sessions.begin() as session:
        secret = api_keys.create(session, api_keys.ensure_project(session, "first"), "used")
        caller = api_keys.authenticate(session, secret)
        assert not caller.use_is_noted
        api_keys.note_use(session, caller.key_id)
        first = last_used(session)
        assert first is not None
        assert api_keys.authenticate(session, secret).use_is_noted
        api_keys.note_use(session, caller.key_id)
        assert last_used(session) == first
        earlier = first - timedelta(seconds=61)
        session.execute(update(ApiKey).where(ApiKey.id == caller.key_id).values(last_used_at=earlier))
        assert not api_keys.authenticate(session, secret).use_is_noted
        api_keys.note_use(session, caller.key_id)
        assert (last_used(session) or earlier) > first


def test_a_key_has_the_role_it_was_made_with_and_the_least_changing_one_by_default(
    sessions: Sessions, project_id: str
) -> None:
    with sessions.begin() as session:
        project = api_keys.ensure_project(session, "first")
        for role in Role:
            assert api_keys.authenticate(session, api_keys.create(session, project, role, role)).role is role
        assert api_keys.authenticate(session, api_keys.create(session, project, "untold")).role is Role.MEMBER


def test_only_a_digest_of_the_key_is_stored(sessions: Sessions, project_id: str) -> None:
    with sessions.begin() as session:
        secret = api_keys.create(session, api_keys.ensure_project(session, "first"), "digest")
        row = session.scalars(select(ApiKey).where(ApiKey.name == "digest")).one()
    assert row.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.startswith(row.prefix)
    assert len(secret) - len(row.prefix) >= 32
