"""Requests without a valid key are counted by address, and keys in URLs are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.http.client_address import client_network
from store.settings import Settings
from tests.api.conftest import open_client
from tests.api.polling import until
from tests.conftest import Tenant

pytestmark = pytest.mark.integration
BURST = 4


@pytest.fixture
def guarded(settings: Settings, broker_url: str) -> Iterator[TestClient]:
    """An API that answers four requests without a key at once, and 24 a minute."""
    assert broker_url
    with open_client(settings.model_copy(update={"anonymous_per_minute": 6 * BURST})) as client:
        yield client


def key_of(project: Tenant) -> dict[str, str]:
    return {"authorization": f"Bearer {project.api_key}"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/nothing"])
def test_a_public_route_has_a_rate(guarded: TestClient, path: str) -> None:
    statuses = [guarded.get(path).status_code for _ in range(2 * BURST)]
    assert 429 not in statuses[:BURST]
    assert statuses[-1] == 429
    error = guarded.get(path)
    assert error.json()["error"]["message"].startswith("One address may send, without a valid API key, 24 requests")
    assert int(error.headers["retry-after"]) >= 1


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer pt-wrong"}], ids=["no key", "a wrong key"])
def test_refused_keys_have_a_rate_and_do_not_shut_out_a_valid_one(
    guarded: TestClient, project: Tenant, headers: dict[str, str]
) -> None:
    assert guarded.get("/v1/models", headers=key_of(project)).status_code == 200  # known from now on
    statuses = [guarded.get("/v1/models", headers=headers).status_code for _ in range(2 * BURST)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    for _ in range(2 * BURST):
        assert guarded.get("/v1/models", headers=key_of(project)).status_code == 200
        assert guarded.post("/v1/datasets", json={"name": "a"}, headers=key_of(project)).status_code == 200


def test_a_valid_key_that_comes_amid_refused_ones_is_let_in_soon(guarded: TestClient, project: Tenant) -> None:
    while guarded.get("/v1/models").status_code != 429:
        pass
    until(lambda: guarded.get("/v1/models", headers=key_of(project)).status_code == 200, seconds=20)


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:9:9:9:9", "2001:db8:0:1::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_of_version_6_counts_with_its_network(given: str, network: str) -> None:
    assert client_network({"client": (given, 1)}) == network
    assert client_network({"client": None}) == "unknown"


@pytest.mark.parametrize("name", ["api_key", "API-KEY", "apikey", "key", "token", "access_token", "authorization", "x"])
@pytest.mark.parametrize("with_header", [True, False])
@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/v1/nothing"])
def test_a_key_in_the_url_is_refused_with_a_hint(
    anonymous: TestClient, project: Tenant, name: str, with_header: bool, path: str
) -> None:
    headers = key_of(project) if with_header else {}
    answer = anonymous.get(path, params={name: project.api_key}, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "api_key_in_url")
    assert "send the key in the header `Authorization: Bearer pt-...`" in error["message"]
    assert project.api_key not in answer.text


def test_a_key_that_is_the_whole_query_is_refused_and_not_repeated(anonymous: TestClient, project: Tenant) -> None:
    answer = anonymous.get(f"/v1/models?{project.api_key}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "api_key_in_url")
    assert project.api_key not in answer.text


def test_other_parameters_pass(client: TestClient) -> None:
    filters = {"metadata[key]": "value", "metadata[token]": "value", "limit": "1"}
    assert client.get("/v1/fine_tuning/jobs", params=filters).status_code == 200
