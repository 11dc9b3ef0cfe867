"""Keys and tenants, on every route that the OpenAPI document knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from sqlalchemy import select
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from api.caches.principals import CACHE_SECONDS
from api.http.route_rules import JSON_LIMIT, RouteRule, RouteRules, declared_rule, requires, under_v1
from api.main import create_app
from api.openapi.document import document
from store.blobs.blobs import Blobs
from store.database import Sessions
from store.files.files import NewFile
from store.generations import generation_leases
from store.jobs import job_leases
from store.roles import Role
from store.settings import Settings
from store.tables.audit import NEW_ADDRESS, AuditEntry
from store.tables.base import Table
from store.tables.project import ApiKey
from store.tenants import api_keys, audit
from store.tenants.audit import Actor
from store.webhooks import delivery_log, endpoints
from tests.api.conftest import add_file
from tests.api.job_steps import JOBS
from tests.api.polling import until
from tests.conftest import Tenant
from tests.intake.build import png
from tests.store.rows import add_generation

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Operation:
    method: str
    path: str


def operations() -> Iterator[Operation]:
    for path, methods in document(create_app(Settings()))["paths"].items():
        if path.startswith("/v1"):
            yield from (Operation(method.upper(), path) for method in methods)


OPERATIONS = list(operations())
OF_ONE = [operation for operation in OPERATIONS if "{" in operation.path]


def name(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def test_the_document_knows_every_route() -> None:
    assert len(OPERATIONS) == 53
    assert len(OF_ONE) == 40


@pytest.mark.parametrize("operation", OPERATIONS, ids=name)
@pytest.mark.parametrize("authorization", [None, "Bearer pt-wrong", "Basic eDp5", "Bearer "])
def test_no_route_answers_without_a_valid_key(
    anonymous: TestClient, operation: Operation, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    answer = anonymous.request(operation.method, operation.path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    if operation.method != "HEAD":
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_an_unknown_route_under_v1_reveals_nothing_without_a_key(anonymous: TestClient) -> None:
    assert anonymous.get("/v1/nothing").status_code == 401


def test_a_revoked_key_changes_nothing_from_then_on_and_reads_nothing_after_a_moment(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    assert client.get("/v1/models").status_code == 200
    with sessions.begin() as session:
        key = session.query(ApiKey).filter_by(project_id=project.id).one()
        assert api_keys.revoke(session, key.id)
    assert client.post("/v1/datasets", json={"name": "after"}).status_code == 401
    until(lambda: client.get("/v1/models").status_code == 401, seconds=2 * CACHE_SECONDS)


WORDS = ("side", "index")  # the side of a pair, a place in a list: nobody's


def ids_in(path: str) -> list[str]:
    return [one for one in re.findall(r"{(\w+)}", path) if one not in WORDS]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def ids_of(client: TestClient, sessions: Sessions, tenant: Tenant, settings: Settings) -> dict[str, str]:
    """Real ids of a project: a file, an upload, a pair of a dataset, a running job, the model that a finished job
    made, the webhook that is sent it, and an image."""
    theirs = bearer(tenant.api_key)
    begun = {"filename": "a", "bytes": 1, "mime_type": "application/zip", "purpose": "fine-tune"}
    upload = client.post("/v1/uploads", json=begun, headers=theirs).json()["id"]
    dataset = client.post("/v1/datasets", json={"name": "a"}, headers=theirs).json()["id"]
    form: dict[str, Any] = {"data": {"prompt": "a"}, "files": {"chosen": ("a.png", png())}}
    pair = client.post(f"/v1/datasets/{dataset}/pairs", **form, headers=theirs).json()["id"]
    file = add_file(sessions, tenant.id)
    made, running = (
        client.post(JOBS, json={"model": "tiny", "training_file": file.id}, headers=theirs).json()["id"]
        for _ in range(2)
    )
    with sessions.begin() as session:
        events = ["fine_tuning.job.succeeded"]
        webhook = endpoints.create(session, tenant.id, url="https://example.com", events=events, key_check="-").id
        owned = job_leases.claim(session, made, worker="w", lease_seconds=60)
        assert owned is not None
        result = NewFile(tenant.id, "a.safetensors", "fine-tune-results", 1, "0" * 64)
        job_leases.succeed(session, owned, results=[result])
        audit.record(session, Actor(tenant.id, operator="somebody"), "limits.changed", tenant.id)
        [delivery] = delivery_log.newest_first(session, webhook, after=None, limit=2)
    model = client.get(f"{JOBS}/{made}", headers=theirs).json()["fine_tuned_model"]
    ids = {"file_id": file.id, "upload_id": upload, "fine_tuning_job_id": running, "model": model}
    of_dataset = {"dataset_id": dataset, "pair_id": pair, "side": "chosen"}
    drawn = {"generation_id": add_image(sessions, tenant.id, settings), "index": "0"}
    return ids | of_dataset | drawn | {"webhook_id": webhook, "delivery_id": delivery.id}


@pytest.fixture
def path_values(client: TestClient, sessions: Sessions, project: Tenant, settings: Settings) -> dict[str, str]:
    return ids_of(client, sessions, project, settings)


def add_image(sessions: Sessions, project_id: str, settings: Settings) -> str:
    generation_id = add_generation(sessions, project_id)
    blob = Blobs(settings.effective_blob_url).put_bytes(b"an image")
    with sessions.begin() as session:
        owned = generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
        assert owned is not None
        images = [{"sha256": blob.sha256, "bytes": blob.bytes}]
        generation_leases.succeed(session, owned, result={"images": images})
    return generation_id


def everything(sessions: Sessions) -> dict[str, list[object]]:
    """All rows of all tables, but for when keys were used, and from where."""
    with sessions() as session:
        found: dict[str, list[object]] = {}
        for table in Table.metadata.sorted_tables:
            columns = [column for column in table.columns if column.name != "last_used_at"]
            query = select(*columns).order_by(*table.primary_key)
            if table.name == AuditEntry.__tablename__:
                query = query.where(AuditEntry.action != NEW_ADDRESS)
            found[table.name] = [tuple(row) for row in session.execute(query)]
        return found


def end_stream(client: TestClient, operation: Operation, values: dict[str, str]) -> None:
    """A stream of events ends with its job, and a test's client reads to the end."""
    if operation.path.endswith("/events/stream"):
        client.post(f"{JOBS}/{values['fine_tuning_job_id']}/cancel")


def test_the_document_leaves_out_no_route_under_v1() -> None:
    routes = {
        Operation(method, route.path_format)
        for route in flat(create_app(Settings()).routes)
        for method in route.methods or ()
        if under_v1(route.path)
    }
    assert routes == set(OPERATIONS)


def flat(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """Of included routers too. A route of another kind, such as a mount, would have to be judged anew."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from flat(included.routes)
        else:
            assert isinstance(route, APIRoute), route
            yield route


def test_every_route_has_a_rule_and_all_under_v1_need_a_key() -> None:
    app = create_app(Settings())
    assert [one.path for one in flat(app.routes) if declared_rule(one) is None] == []
    public = {one.path for one in flat(app.routes) if declared_rule(one) == RouteRule(None)}
    assert public == {"/healthz", "/readyz", "/metrics", "/openapi.json"}
    assert [one.path for one in flat(app.routes) if under_v1(one.path) and one.path in public] == []


def test_a_route_without_a_rule_gets_the_strictest() -> None:
    router = APIRouter(prefix="/v1/new")
    router.add_api_route("", lambda: None, methods=["GET"])
    router.add_api_route("/open", requires(Role.READ_ONLY)(lambda: None), methods=["GET"])
    rules = RouteRules([router])
    assert rules.of("GET", "/v1/new").role is Role.ADMIN
    assert rules.of("GET", "/v1/new").max_body(Settings()) == JSON_LIMIT
    assert rules.of("GET", "/v1/new/open").role is Role.READ_ONLY


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/v1/nothing", Role.READ_ONLY),
        ("POST", "/v1/nothing", Role.MEMBER),
        ("PUT", "/v1/models", Role.MEMBER),
        ("PATCH", "/v1/webhooks/whook-1", Role.ADMIN),
        ("POST", "/v1/webhooks/whook-1/nothing/else", Role.ADMIN),
        ("GET", "/v1/webhooks/whook-1/nothing", Role.READ_ONLY),
        ("POST", "/nothing", None),
    ],
)
def test_what_no_route_answers_is_judged_too(method: str, path: str, role: Role | None) -> None:
    rule = create_app(Settings()).state.rules.of(method, path)
    assert (rule.role, rule.max_body(Settings())) == (role, JSON_LIMIT)


@pytest.mark.parametrize("operation", OF_ONE, ids=name)
def test_another_projects_ids_do_not_exist(
    client: TestClient, sessions: Sessions, path_values: dict[str, str], other_project: Tenant, operation: Operation
) -> None:
    path = operation.path.format(**path_values)
    before = everything(sessions)
    assert client.request(operation.method, path, headers=bearer(other_project.api_key)).status_code == 404
    assert everything(sessions) == before
    end_stream(client, operation, path_values)
    # The owner gets something else, so the 404 above is not for a wrong path.
    assert client.request(operation.method, path).status_code != 404


@pytest.mark.parametrize("operation", [one for one in OF_ONE if len(ids_in(one.path)) > 1], ids=name)
def test_an_id_of_ones_own_next_to_another_projects_opens_nothing(
    client: TestClient,
    sessions: Sessions,
    path_values: dict[str, str],
    other_project: Tenant,
    operation: Operation,
    settings: Settings,
) -> None:
    own = ids_of(client, sessions, other_project, settings)
    before = everything(sessions)
    named = ids_in(operation.path)
    for foreign in named:
        path = operation.path.format(**(own | {foreign: path_values[foreign]}))
        answer = client.request(operation.method, path, headers=bearer(other_project.api_key))
        assert answer.status_code == 404, path
    assert everything(sessions) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=name)
def test_what_a_key_may_do_is_its_role(
    client: TestClient, sessions: Sessions, project: Tenant, path_values: dict[str, str], operation: Operation
) -> None:
    end_stream(client, operation, path_values)
    for role in Role:  # the least first: what it is refused is still there for the next
        try_as(role, client, sessions, project, operation, operation.path.format(**path_values))


def try_as(
    role: Role, client: TestClient, sessions: Sessions, project: Tenant, operation: Operation, path: str
) -> None:
    with sessions.begin() as session:
        key = api_keys.create(session, api_keys.ensure_project(session, project.name), role, role)
    before = everything(sessions)
    answer = client.request(operation.method, path, headers=bearer(key))
    of_admins = operation.path.startswith("/v1/audit")
    if operation.method in ("GET", "HEAD") and (not of_admins or role == Role.ADMIN):
        assert answer.status_code not in (401, 403, 404)
        assert everything(sessions) == before
        return
    needed = Role.ADMIN if of_admins or operation.path.startswith("/v1/webhooks") else Role.MEMBER
    enough = list(Role).index(role) >= list(Role).index(needed)
    assert (answer.status_code != 403) == enough
    if not enough:
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("insufficient_role", "invalid_request_error")
        assert f"a {needed} key" in error["message"] or f"an {needed} key" in error["message"]
        assert everything(sessions) == before


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.method == "GET" and "{" not in one.path], ids=name
)
def test_lists_show_nothing_of_another_project(
    client: TestClient, path_values: dict[str, str], project: Tenant, other_project: Tenant, operation: Operation
) -> None:
    theirs = [project.id, *(value for name, value in path_values.items() if name not in WORDS)]
    shown = client.get(operation.path, headers=bearer(other_project.api_key))
    assert shown.status_code == 200
    assert [one for one in theirs if one in shown.text] == []
    # The owner's answer shows something, so what is looked for above would be there.
    assert [one for one in theirs if one in client.get(operation.path).text] != []


REFERENCES = {
    ("CreateFineTuningJob", "training_file"),
    ("CreateFineTuningJob", "validation_file"),
    ("CompleteUpload", "part_ids"),
    ("CreateDataset", "file_ids"),
    ("AddDatasetFile", "file_id"),
}


def test_every_id_that_a_body_may_name_is_known_to_the_test_below() -> None:
    found = document(create_app(Settings()))
    named = set()
    for schema in found["components"]["schemas"]:
        if schema.startswith(("Create", "Complete", "Update", "Add")):
            properties = found["components"]["schemas"][schema]["properties"]
            named |= {(schema, one) for one in properties if re.search(r"(_id|_ids|_file|_files)$", one)}
    assert named == REFERENCES


def test_a_body_cannot_name_what_is_another_projects(
    client: TestClient, sessions: Sessions, path_values: dict[str, str], other_project: Tenant, settings: Settings
) -> None:
    theirs = bearer(other_project.api_key)
    own = ids_of(client, sessions, other_project, settings)
    job = {"model": "tiny", "training_file": own["file_id"]}
    for field in ("training_file", "validation_file"):
        answer = client.post(JOBS, json=job | {field: path_values["file_id"]}, headers=theirs)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_not_found")
    for name in (path_values["dataset_id"], f"{path_values['dataset_id']}@2"):
        answer = client.post(JOBS, json=job | {"training_file": name}, headers=theirs)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "dataset_not_found")
    file_id = path_values["file_id"]
    for path, body in (
        ("/v1/datasets", {"name": "stolen", "file_ids": [file_id]}),
        (f"/v1/datasets/{own['dataset_id']}/files", {"file_id": file_id}),
    ):
        assert client.post(path, json=body, headers=theirs).json()["error"]["code"] == "file_not_found"
    part = client.post(f"/v1/uploads/{path_values['upload_id']}/parts", files={"data": b"a"}).json()["id"]
    complete = f"/v1/uploads/{own['upload_id']}/complete"
    answer = client.post(complete, json={"part_ids": [part]}, headers=theirs)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_found")


def test_a_use_of_a_key_is_noted(client: TestClient, sessions: Sessions, project: Tenant) -> None:
    assert client.get("/v1/models").status_code == 200
    with sessions() as session:
        assert session.query(ApiKey).filter_by(project_id=project.id).one().last_used_at is not None
