"""/v1/audit on a live server: who did what from where, shown to the project's admins alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import func, select, update
from sqlalchemy.engine import make_url

from api.audit.actor import actor
from api.auth.authentication import _record_address
from api.main import create_app
from store.database import Sessions, open_engine, open_sessions
from store.files.files import NewFile
from store.jobs import job_leases
from store.roles import Role
from store.settings import Settings
from store.tables.audit import NEW_ADDRESS, AuditEntry
from store.tenants import api_keys, audit
from store.tenants.audit import MAX_ADDRESSES, Actor
from tests.api.auth.test_authentication import flat
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS
from tests.api.serving import Live, serving
from tests.conftest import Tenant, make_tenant
from tests.intake.build import png

pytestmark = pytest.mark.integration
AUDIT, URL = "/v1/audit", "http://127.0.0.1:9/hook"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    """Whose operator lets webhooks go to loopback."""
    home = tmp_path_factory.mktemp("audit")
    with serving(home, postgres_url, valkey_url, webhooks_allow_http=True, webhooks_allow_private=True) as server:
        yield server


@pytest.fixture
def tenant(server: Live, request: pytest.FixtureRequest) -> Tenant:
    return make_tenant(server.sessions, request.node.name)


@pytest.fixture
def http(server: Live, tenant: Tenant) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {tenant.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


def entries(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(AUDIT, params={"limit": 100} | query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def key_of(sessions: Sessions, tenant: Tenant, role: Role = Role.ADMIN) -> str:
    with sessions.begin() as session:
        return api_keys.create(session, api_keys.ensure_project(session, tenant.name), role, role)


def finished_model(server: Live, client: httpx.Client, tenant: Tenant) -> str:
    file = add_file(server.sessions, tenant.id)
    job = client.post(JOBS, json={"model": "tiny", "training_file": file.id}).json()["id"]
    with server.sessions.begin() as session:
        lease = job_leases.claim(session, job, worker="w", lease_seconds=60)
        assert lease is not None
        job_leases.succeed(
            session, lease, results=[NewFile(tenant.id, "a.safetensors", "fine-tune-results", 1, "0" * 64)]
        )
    name: str = client.get(f"{JOBS}/{job}").json()["fine_tuned_model"]
    return name


def test_every_deletion_and_every_change_of_a_webhook_is_an_entry(
    server: Live, http: httpx.Client, tenant: Tenant
) -> None:
    once = {"idempotency-key": "once"}
    [webhook] = {http.post("/v1/webhooks", json={"url": URL}, headers=once).json()["id"] for _ in range(2)}
    http.post(f"/v1/webhooks/{webhook}/rotate")
    http.delete(f"/v1/webhooks/{webhook}")
    file = add_file(server.sessions, tenant.id).id
    http.delete(f"/v1/files/{file}")
    dataset = http.post("/v1/datasets", json={"name": "a"}).json()["id"]
    sent = http.post(f"/v1/datasets/{dataset}/pairs", data={"prompt": "a"}, files={"chosen": ("a.png", png())})
    pair = sent.json()["id"]
    http.delete(f"/v1/datasets/{dataset}/pairs/{pair}")
    http.delete(f"/v1/datasets/{dataset}")
    model = finished_model(server, http, tenant)
    http.delete(f"/v1/models/{model}")
    for path in (f"webhooks/{webhook}", f"files/{file}", f"models/{model}", "datasets/ds-none"):  # not there: no entry
        assert http.delete(f"/v1/{path}").status_code == 404

    [key_id] = {one["key_id"] for one in entries(http)}
    found = [(one["action"], one["subject"], one["details"]) for one in reversed(entries(http))]
    assert found == [
        (NEW_ADDRESS, key_id, {}),
        ("webhook.created", webhook, {"url": URL}),
        ("webhook.rotated", webhook, {"secret_version": 2}),
        ("webhook.deleted", webhook, {}),
        ("file.deleted", file, {}),
        ("dataset.pair_deleted", pair, {"dataset_id": dataset}),
        ("dataset.deleted", dataset, {}),
        ("model.deleted", model, {}),
    ]
    assert {one["address"] for one in entries(http)} == {"127.0.0.1"}
    assert tenant.api_key not in http.get(AUDIT).text

    [deleted] = entries(http, action="file.deleted")
    assert deleted["subject"] == file
    first = http.get(AUDIT, params={"limit": 3}).json()
    rest = http.get(AUDIT, params={"limit": 100, "after": first["last_id"]}).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert first["data"] + rest["data"] == entries(http)


def test_admins_alone_see_it_and_of_their_own_project(server: Live, http: httpx.Client, tenant: Tenant) -> None:
    mine = entries(http)
    assert mine
    for role in (Role.READ_ONLY, Role.MEMBER):
        other = {"authorization": f"Bearer {key_of(server.sessions, tenant, role)}"}
        assert http.get(AUDIT, headers=other).json()["error"]["code"] == "insufficient_role"
    stranger = make_tenant(server.sessions, f"not {tenant.name}")
    theirs = {"authorization": f"Bearer {stranger.api_key}"}
    shown = http.get(AUDIT, headers=theirs).json()["data"]
    assert {one["id"] for one in shown}.isdisjoint(one["id"] for one in mine)
    answer = http.get(AUDIT, params={"after": mine[0]["id"]}, headers=theirs)
    assert answer.json()["error"]["code"] == "invalid_cursor"


def test_the_first_use_of_a_key_from_an_address_is_an_entry_and_later_ones_are_none(http: httpx.Client) -> None:
    addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:1::1", "192.0.2.2"]
    for address in addresses * 2:  # as a trusted proxy forwards them
        assert http.get("/v1/models", headers={"x-forwarded-for": address}).status_code == 200
    noted = [one["address"] for one in reversed(entries(http, action=NEW_ADDRESS))]
    assert noted == ["192.0.2.1", "192.0.2.2", "2001:db8::/64", "2001:db8:1::/64", "127.0.0.1"]


def test_another_process_knows_what_was_noted(server: Live, tenant: Tenant) -> None:
    actor = Actor(tenant.id, key_id="key-1", address="192.0.2.1")
    for _ in range(2):
        with server.sessions.begin() as session:
            audit.record_address(session, actor)
    with server.sessions() as session:
        query = select(func.count()).select_from(AuditEntry).where(AuditEntry.key_id == "key-1")
        assert session.scalars(query).one() == 1


def test_a_key_from_ever_new_addresses_fills_no_table(server: Live, tenant: Tenant) -> None:
    with server.sessions.begin() as session:
        for number in range(MAX_ADDRESSES + 5):
            audit.record_address(
                session, Actor(tenant.id, key_id="key-2", address=f"10.0.{number // 256}.{number % 256}")
            )
    with server.sessions() as session:
        query = select(func.count()).select_from(AuditEntry).where(AuditEntry.key_id == "key-2")
        assert session.scalars(query).one() == MAX_ADDRESSES


def test_entries_go_after_their_time(server: Live, http: httpx.Client, tenant: Tenant) -> None:
    add = add_file(server.sessions, tenant.id).id
    http.delete(f"/v1/files/{add}")
    [deleted] = entries(http, action="file.deleted")
    with server.sessions.begin() as session:
        past = func.clock_timestamp() - timedelta(days=366)
        session.execute(update(AuditEntry).where(AuditEntry.id == deleted["id"]).values(created_at=past))
    with server.sessions.begin() as session:
        audit.delete_expired(session, days=Settings().audit_days)
    assert [one["action"] for one in entries(http)] == [NEW_ADDRESS]


def test_a_database_that_takes_no_writes_lets_the_request_pass(database_url: str) -> None:
    standby = make_url(database_url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    engine = open_engine(standby.render_as_string(hide_password=False))
    actor = Actor("proj-1", key_id="key-1", address="192.0.2.1")
    assert not _record_address(open_sessions(engine), actor)
    engine.dispose()


def routes(settings: Settings) -> Iterator[tuple[str, APIRoute]]:
    for route in flat(create_app(settings).routes):
        for method in route.methods or ():
            yield method, route


def test_no_route_that_deletes_or_changes_webhooks_can_forget_its_entry(settings: Settings) -> None:
    """Whoever adds one has to take the actor, and then to record what it does."""
    audited = []
    for method, route in routes(settings):
        takes_actor = any(one.call is actor for one in route.dependant.dependencies)
        webhooks = route.path.startswith("/v1/webhooks") and method == "POST" and "deliveries" not in route.path
        assert takes_actor == (method == "DELETE" or webhooks), (method, route.path)
        audited += [route.path] if takes_actor else []
    assert len(audited) >= 7
