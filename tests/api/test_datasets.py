"""Datasets: what they are made of, how they change, what is shown of their past."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from intake import PreparedPair
from store.blobs.blobs import Blobs
from store.database import Sessions
from tests.api.conftest import add_file
from tests.api.dataset_steps import DATASETS, add, create, processed_file, refused
from tests.conftest import Tenant

pytestmark = pytest.mark.integration

ROWS = (
    PreparedPair(1, "a fox", "a" * 64, "b" * 64, "train", 2.0, "kim", 7),
    PreparedPair(4, "a house", "c" * 64, None),
)


def prompts(client: TestClient, dataset_id: str, **requested: Any) -> list[str]:
    answer = client.get(f"{DATASETS}/{dataset_id}/pairs", params=requested)
    assert answer.status_code == 200, answer.text
    return [pair["prompt"] for pair in answer.json()["data"]]


def test_a_data_set_begins_empty_with_its_first_revision(client: TestClient) -> None:
    made = create(client, name="  foxes ", metadata={"team": "a"})
    assert made["id"].startswith("ds-")
    assert isinstance(made["created_at"], int)
    expected = {"object": "dataset", "name": "foxes", "metadata": {"team": "a"}, "revision": 1, "pairs": 0}
    assert {name: made[name] for name in expected} == expected
    assert client.get(f"{DATASETS}/{made['id']}").json() == made
    assert create(client, metadata=None, file_ids=None)["metadata"] is None


@pytest.mark.parametrize(
    ("document", "field_errors"),
    [
        ({}, {"name": "missing_field"}),
        ({"name": " ", "colour": "red"}, {"name": "invalid_value", "colour": "unknown_field"}),
        ({"name": "a\nb"}, {"name": "invalid_value"}),
        ({"name": "a", "metadata": {"k": "v" * 513}}, {"metadata.k": "invalid_value"}),
        ({"name": "a", "file_ids": ["file-a", "file-a"]}, {"file_ids": "invalid_value"}),
        (
            {"name": "a", "file_ids": ["file-a", "file-b"]},
            dict.fromkeys(("file_ids.0", "file_ids.1"), "file_not_found"),
        ),
    ],
)
def test_every_fault_of_a_create_is_named(client: TestClient, document: Any, field_errors: dict[str, str]) -> None:
    assert refused(client.post(DATASETS, json=document)) == field_errors
    assert client.get(DATASETS).json()["data"] == []


def test_a_data_set_of_files_holds_their_pairs_with_all_that_rows_said(
    client: TestClient, sessions: Sessions, blobs: Blobs, project: Tenant
) -> None:
    first = processed_file(sessions, blobs, project.id, *ROWS)
    second = processed_file(sessions, blobs, project.id, PreparedPair(1, "a tree", "d" * 64, None))
    made = create(client, file_ids=[first, second])
    assert (made["revision"], made["pairs"]) == (1, 3)
    pairs = client.get(f"{DATASETS}/{made['id']}/pairs").json()["data"]
    expected = {
        "object": "dataset.pair",
        "dataset_id": made["id"],
        "number": 1,
        "prompt": "a fox",
        "chosen_sha256": "a" * 64,
        "rejected_sha256": "b" * 64,
        "split": "train",
        "weight": 2.0,
        "annotator": "kim",
        "seed": 7,
        "file_id": first,
        "file_row": 1,
        "added_in": 1,
        "removed_in": None,
    }
    assert {name: pairs[0][name] for name in expected} == expected
    assert [(pair["number"], pair["file_id"], pair["file_row"]) for pair in pairs[1:]] == [
        (2, first, 4),
        (3, second, 1),
    ]


def test_a_file_adds_its_pairs_as_one_revision(
    client: TestClient, sessions: Sessions, blobs: Blobs, project: Tenant
) -> None:
    dataset_id = create(client)["id"]
    file_id = processed_file(sessions, blobs, project.id, *ROWS)
    changed = client.post(f"{DATASETS}/{dataset_id}/files", json={"file_id": file_id})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["id"], changed.json()["revision"], changed.json()["pairs"]) == (dataset_id, 2, 2)
    [latest, first] = client.get(f"{DATASETS}/{dataset_id}/revisions").json()["data"]
    assert (latest["what"], latest["pairs"]) == (f"2 pairs added from {file_id}", 2)
    assert (first["what"], first["pairs"]) == ("created with 0 pairs", 0)
    client.delete(f"/v1/files/{file_id}")
    assert prompts(client, dataset_id) == ["a fox", "a house"]


def test_a_file_that_is_not_read_yet_is_to_be_retried_and_one_that_cannot_be_used_is_refused(
    client: TestClient, sessions: Sessions, project: Tenant, other_project: Tenant
) -> None:
    dataset_id = create(client)["id"]
    unread = add_file(sessions, project.id, status="uploaded").id
    for answer in (
        client.post(f"{DATASETS}/{dataset_id}/files", json={"file_id": unread}),
        client.post(DATASETS, json={"name": "a", "file_ids": [unread]}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "file_not_processed")
        assert "x-should-retry" not in answer.headers  # clients may try again
    files = {
        "invalid_file": add_file(sessions, project.id, status="error").id,
        "file_not_found": add_file(sessions, other_project.id).id,
    }
    product = add_file(sessions, project.id, purpose="fine-tune-results").id
    for code, file_id in [*files.items(), ("invalid_file", product)]:
        answer = client.post(f"{DATASETS}/{dataset_id}/files", json={"file_id": file_id})
        assert refused(answer) == {"file_id": code}
    assert refused(client.post(f"{DATASETS}/{dataset_id}/files", json={})) == {"file_id": "missing_field"}
    assert client.get(f"{DATASETS}/{dataset_id}").json()["revision"] == 1


def test_every_change_is_a_revision_and_older_ones_can_be_read(client: TestClient) -> None:
    dataset_id = create(client)["id"]
    fox = add(client, dataset_id, 1, 2, prompt="fox")
    add(client, dataset_id, 3, prompt="house")
    gone = client.delete(f"{DATASETS}/{dataset_id}/pairs/{fox['id']}")
    assert gone.json() == {"id": fox["id"], "object": "dataset.pair", "deleted": True, "revision": 4}
    by_revision = {number: prompts(client, dataset_id, revision=number) for number in (1, 2, 3, 4)}
    assert by_revision == {1: [], 2: ["fox"], 3: ["fox", "house"], 4: ["house"]}
    assert prompts(client, dataset_id) == ["house"]
    revisions = client.get(f"{DATASETS}/{dataset_id}/revisions").json()["data"]
    assert [revision["what"] for revision in revisions] == [
        "pair 1 removed",
        "1 pair added",
        "1 pair added",
        "created with 0 pairs",
    ]
    assert [revision["pairs"] for revision in revisions] == [1, 2, 1, 0]
    stored = client.get(f"{DATASETS}/{dataset_id}/pairs/{fox['id']}").json()
    assert (stored["added_in"], stored["removed_in"]) == (2, 4)
    again = client.delete(f"{DATASETS}/{dataset_id}/pairs/{fox['id']}")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "pair_not_found")


def test_a_revision_that_is_none_is_not_found(client: TestClient) -> None:
    dataset_id = create(client)["id"]
    for route in ("pairs", "report"):
        for number in (2, 2**70):
            answer = client.get(f"{DATASETS}/{dataset_id}/{route}", params={"revision": number})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "revision_not_found")
        assert client.get(f"{DATASETS}/{dataset_id}/{route}", params={"revision": 0}).status_code == 400


def test_lists_are_paged_by_cursor(client: TestClient) -> None:
    ids = [create(client)["id"] for _ in range(3)]
    page = client.get(DATASETS, params={"limit": 2}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    rest = client.get(DATASETS, params={"limit": 2, "after": page["last_id"]}).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([ids[0]], False)

    for seed in range(1, 4):
        add(client, ids[0], seed, prompt=str(seed))
    pairs = client.get(f"{DATASETS}/{ids[0]}/pairs", params={"limit": 2}).json()
    assert ([pair["prompt"] for pair in pairs["data"]], pairs["has_more"], pairs["revision"]) == (["1", "2"], True, 4)
    assert prompts(client, ids[0], limit=2, after=pairs["last_id"]) == ["3"]

    revisions = client.get(f"{DATASETS}/{ids[0]}/revisions", params={"limit": 3}).json()
    assert [one["id"] for one in revisions["data"]] == [f"{ids[0]}@{number}" for number in (4, 3, 2)]
    older = client.get(f"{DATASETS}/{ids[0]}/revisions", params={"after": revisions["last_id"]}).json()
    assert ([one["number"] for one in older["data"]], older["has_more"]) == ([1], False)
    for none in (f"{ids[1]}@3", "nonsense", ids[0]):
        refused = client.get(f"{DATASETS}/{ids[0]}/revisions", params={"after": none})
        assert refused.json()["error"]["code"] == "invalid_cursor"


def test_a_deleted_dataset_is_gone_from_every_route(client: TestClient) -> None:
    dataset_id = create(client)["id"]
    pair = add(client, dataset_id, 1)
    deleted = client.delete(f"{DATASETS}/{dataset_id}").json()
    assert deleted == {"id": dataset_id, "object": "dataset", "deleted": True}
    path = f"{DATASETS}/{dataset_id}"
    image = f"/pairs/{pair['id']}/images/chosen"
    for route in ("", "/pairs", f"/pairs/{pair['id']}", image, "/revisions", "/report"):
        answer = client.get(path + route)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "dataset_not_found")
    for route in ("/pairs", "/files"):
        assert client.post(path + route).status_code == 404
    for route in ("", f"/pairs/{pair['id']}"):
        assert client.delete(path + route).status_code == 404
    assert client.get(DATASETS).json()["data"] == []


def test_a_pair_is_found_in_its_own_data_set_alone(client: TestClient) -> None:
    pair_id = add(client, create(client)["id"], 1)["id"]
    other = create(client)["id"]
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"{DATASETS}/{other}/pairs/{pair_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "pair_not_found")
    assert client.get(f"{DATASETS}/{other}/pairs/{pair_id}/images/chosen").status_code == 404
