"""The review of a dataset, of whatever revision, with images from pairs and from files."""

from __future__ import annotations

import httpx2
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.datasets import review
from intake import PreparedPair
from intake.images.normalise import normalise
from intake.limits import Limits
from store.blobs.blobs import Blobs
from store.database import Sessions
from tests.api.dataset_steps import DATASETS, add, create, image_file, processed_file
from tests.conftest import Tenant

pytestmark = pytest.mark.integration


def codes(client: TestClient, dataset_id: str, **requested: int) -> list[tuple[str, int]]:
    answer = client.get(f"{DATASETS}/{dataset_id}/report", params=requested)
    assert answer.status_code == 200, answer.text
    return [(finding["code"], finding["row"]) for finding in answer.json()["findings"]]


def stored(blobs: Blobs, seed: int) -> str:
    return blobs.put_bytes(normalise(image_file(seed), Limits()).data).sha256


def test_a_revision_is_reviewed_as_a_file_is(client: TestClient) -> None:
    dataset_id = create(client)["id"]
    add(client, dataset_id, 1, 2, prompt="a fox", split="train")
    add(client, dataset_id, 3, prompt="a house")
    repeated = add(client, dataset_id, 1, 2, prompt="A  fox")
    add(client, dataset_id, 2, 1, prompt="a fox", split="validation")
    found = client.get(f"{DATASETS}/{dataset_id}/report").json()
    expected = {"object": "dataset.report", "dataset_id": dataset_id, "revision": 5, "format": "dataset", "rows": 4}
    assert {name: found[name] for name in expected} == expected
    figures = {"pairs": 4, "without_rejected": 1, "prompts": 2, "images": 3, "sizes": {"80x64": 7}, "repeated": 1}
    assert {name: found["figures"][name] for name in figures} == figures
    reported = [("pair_repeated", 3), ("prompt_leaked", 4), ("pair_contradicted", 4)]
    assert codes(client, dataset_id) == reported
    client.delete(f"{DATASETS}/{dataset_id}/pairs/{repeated['id']}")
    assert codes(client, dataset_id) == reported[1:]
    assert codes(client, dataset_id, revision=5) == reported
    assert codes(client, dataset_id, revision=3) == []
    words = client.get(f"{DATASETS}/{dataset_id}/report", params={"format": "text", "revision": 5})
    assert words.headers["content-type"].startswith("text/plain")
    assert words.text.startswith("dataset: 4 rows read, 4 pairs kept.\n")
    assert "1 pair repeating an earlier one" in words.text


def test_an_empty_data_set_has_a_report(client: TestClient) -> None:
    found = client.get(f"{DATASETS}/{create(client)['id']}/report").json()
    assert (found["rows"], found["figures"]["pairs"], found["findings"]) == (0, 0, [])


def test_images_that_came_in_a_file_are_measured_once(
    client: TestClient, sessions: Sessions, blobs: Blobs, project: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = (101, 102, 103)
    rows = [PreparedPair(seed, "a fox", stored(blobs, seed), stored(blobs, 100)) for seed in seeds]
    dataset_id = create(client, file_ids=[processed_file(sessions, blobs, project.id, *rows)])["id"]
    sizes = client.get(f"{DATASETS}/{dataset_id}/report").json()["figures"]["sizes"]
    assert sizes == {"80x64": 6}
    with sessions() as session:
        known = session.execute(
            text("SELECT count(*) FROM image_facts WHERE sha256 = ANY(:some)"), {"some": [row.chosen for row in rows]}
        ).scalar_one()
    assert known == 3

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(review, "measured", never)
    assert client.get(f"{DATASETS}/{dataset_id}/report").status_code == 200


def test_a_report_that_takes_longer_than_a_request_goes_on_when_it_is_requested_again(
    client: TestClient, sessions: Sessions, blobs: Blobs, project: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [PreparedPair(seed, "a fox", stored(blobs, seed), None) for seed in range(200, 205)]
    dataset_id = create(client, file_ids=[processed_file(sessions, blobs, project.id, *rows)])["id"]
    clock = iter(range(1000))
    monkeypatch.setattr(review, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(review, "MEASURING_SECONDS", 2.0)
    answers: list[httpx2.Response] = []
    while not answers or answers[-1].status_code == 409:
        answers.append(client.get(f"{DATASETS}/{dataset_id}/report"))
        assert len(answers) < 5
    reported = [answer.json()["error"]["message"].split(" are ")[0] for answer in answers[:-1]]
    assert reported == [f"2 of 5 images of {dataset_id}", f"4 of 5 images of {dataset_id}"]
    assert {answer.json()["error"]["code"] for answer in answers[:-1]} == {"report_not_ready"}
    assert not any("x-should-retry" in answer.headers for answer in answers)
    assert answers[-1].json()["figures"]["images"] == 5
