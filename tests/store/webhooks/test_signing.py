"""Secrets of webhooks: made and not kept, rotated, and bound to the deployment's key."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Interval, func, select, type_coerce, update

from store.database import Sessions
from store.settings import Settings
from store.tables.webhook import WebhookSecret
from store.webhooks import endpoints
from store.webhooks.outbox import TYPES
from store.webhooks.signing import SigningKey, shown, signature, signing_key

pytestmark = pytest.mark.integration
EVERY = list(TYPES.values())
KEY = SigningKey(b"a key")


def endpoint(sessions: Sessions, project_id: str) -> str:
    with sessions.begin() as session:
        made = endpoints.create(session, project_id, url="https://example.com", events=EVERY, key_check=KEY.check)
        return made.id


def versions(sessions: Sessions, endpoint_id: str, key: SigningKey = KEY) -> list[int]:
    with sessions() as session:
        return endpoints.valid_secrets(session, endpoint_id, key_check=key.check)


def rotate(sessions: Sessions, project_id: str, endpoint_id: str, key: SigningKey = KEY) -> int:
    with sessions.begin() as session:
        return endpoints.rotate(session, project_id, endpoint_id, key_check=key.check)[1]


def test_a_rotated_secret_is_valid_for_a_day_more(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    assert versions(sessions, endpoint_id) == [1]
    assert rotate(sessions, project_id, endpoint_id) == 2
    assert versions(sessions, endpoint_id) == [2, 1]
    with sessions.begin() as session:
        left = select(type_coerce(WebhookSecret.expires_at - func.now(), Interval)).where(WebhookSecret.version == 1)
        remaining = session.scalars(left).one()
        assert timedelta(hours=23, minutes=59) < remaining <= timedelta(hours=24)
        session.execute(update(WebhookSecret).where(WebhookSecret.version == 1).values(expires_at=func.now()))
    assert versions(sessions, endpoint_id) == [2]
    assert rotate(sessions, project_id, endpoint_id) == 3  # a number is never given twice
    assert versions(sessions, endpoint_id) == [3, 2]


def test_however_often_it_is_rotated_the_header_stays_short(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    for _ in range(12):
        newest = rotate(sessions, project_id, endpoint_id)
    assert versions(sessions, endpoint_id) == list(range(newest, newest - endpoints.MAX_SECRETS, -1))


def test_secrets_of_another_deployment_key_are_not_signed_with(sessions: Sessions, project_id: str) -> None:
    endpoint_id = endpoint(sessions, project_id)
    other = SigningKey(b"another key")
    assert versions(sessions, endpoint_id, other) == []
    rotate(sessions, project_id, endpoint_id, other)
    assert versions(sessions, endpoint_id, other) == [2]


def test_a_secret_is_the_keys_the_endpoints_and_the_numbers_own() -> None:
    secrets = {key.secret(one, version) for key in (KEY, SigningKey(b"b")) for one in ("x", "y") for version in (1, 2)}
    assert len(secrets) == 8
    assert KEY.secret("x", 1) == KEY.secret("x", 1)
    assert base64.b64decode(shown(KEY.secret("x", 1)).removeprefix("whsec_")) == KEY.secret("x", 1)
    assert "a key" not in repr(KEY)


def test_the_deployment_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        checks = {key.check for key in pool.map(lambda _: signing_key(settings), range(32))}
    assert checks == {signing_key(settings).check}
    [path] = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    given = Settings(home=tmp_path, webhooks_key="k" * 32)
    assert signing_key(given).check not in checks


def test_a_signature_is_that_of_the_standard_webhooks_example() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks, which its libraries verify."""
    secret = base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    assert shown(secret) == "whsec_plJ3nmyCDGBKInavdOK15jsl"
    body = '{"event_type":"ping","data":{"success":true}}'
    signed = signature(secret, event_id="msg_loFOjxBNrRLzqYUf", timestamp=1731705121, body=body)
    assert signed == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
