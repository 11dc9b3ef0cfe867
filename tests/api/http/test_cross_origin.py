"""Pages of other origins call the API where the operator allows it, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from store.settings import Settings
from tests.api.conftest import open_client
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
OURS, OTHERS = "https://studio.example", "https://elsewhere.example"


@pytest.fixture
def open_to_ours(settings: Settings, project: Tenant) -> Iterator[TestClient]:
    with open_client(settings.model_copy(update={"cors_origins": f"{OURS} https://b.example"})) as client:
        client.headers["authorization"] = f"Bearer {project.api_key}"
        yield client


def preflight(client: TestClient, origin: str) -> dict[str, str]:
    requested = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
        "authorization": "",  # a browser sends none with a preflight
    }
    answer = client.options("/v1/fine_tuning/jobs", headers=requested)
    return {"status": str(answer.status_code)} | dict(answer.headers)


def test_an_allowed_origin_gets_permission_before_it_shows_a_key(open_to_ours: TestClient) -> None:
    reported = preflight(open_to_ours, OURS)
    assert (reported["status"], reported["access-control-allow-origin"]) == ("200", OURS)
    assert "authorization" in reported["access-control-allow-headers"].lower()


def test_its_pages_see_answers_and_refusals_with_the_headers_that_clients_need(open_to_ours: TestClient) -> None:
    for authorization, status in (({}, 200), ({"authorization": "Bearer pt-wrong"}, 401)):
        answer = open_to_ours.get("/v1/models", headers={"origin": OURS} | authorization)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, OURS)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


def test_another_origin_is_refused(open_to_ours: TestClient) -> None:
    assert preflight(open_to_ours, OTHERS)["status"] == "400"
    assert "access-control-allow-origin" not in open_to_ours.get("/v1/models", headers={"origin": OTHERS}).headers


def test_without_the_setting_no_origin_is_allowed(client: TestClient) -> None:
    reported = preflight(client, OURS)
    assert reported["status"] == "401"
    assert not any(name.startswith("access-control") for name in reported)
