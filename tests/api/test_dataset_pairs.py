"""Pairs that come one by one: what is taken, what is refused, and what is left behind."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.datasets import pair_images
from api.datasets.routes import PAIR_BYTES
from api.http.route_rules import FORM_OVERHEAD
from intake.images.normalise import normalise
from intake.limits import Limits
from store.blobs.blobs import Blobs
from store.database import Sessions
from store.settings import Settings
from tests.api import open_request
from tests.api.dataset_steps import DATASETS, Answer, add, create, image_file, processed_file, refused, send
from tests.api.serving import Live
from tests.conftest import Tenant
from tests.intake.build import encoded, png, zip_of

pytestmark = pytest.mark.integration
CHOSEN, REJECTED = image_file(1), image_file(2)


@pytest.fixture
def dataset_id(client: TestClient) -> str:
    made: str = create(client)["id"]
    return made


def stored(image: bytes) -> str:
    return hashlib.sha256(normalise(image, Limits()).data).hexdigest()


def test_a_pair_is_stored_normalised_with_all_that_was_said_of_it(
    client: TestClient, dataset_id: str, blobs: Blobs, settings: Settings
) -> None:
    fields = {
        "prompt": "  a füchs 🦊 ",
        "split": "validation",
        "weight": "2.5",
        "annotator": "kim",
        "seed": str(2**63 - 1),
    }
    answer = send(client, dataset_id, fields, chosen=CHOSEN, rejected=REJECTED)
    assert answer.status_code == 200, answer.text
    pair = answer.json()
    expected = {
        "object": "dataset.pair",
        "dataset_id": dataset_id,
        "number": 1,
        "prompt": "a füchs 🦊",
        "chosen_sha256": stored(CHOSEN),
        "rejected_sha256": stored(REJECTED),
        "split": "validation",
        "weight": 2.5,
        "annotator": "kim",
        "seed": 2**63 - 1,
        "file_id": None,
        "file_row": None,
        "added_in": 2,
        "removed_in": None,
        "warnings": [],
    }
    assert {name: pair[name] for name in expected} == expected
    assert pair.pop("warnings") == []
    assert client.get(f"{DATASETS}/{dataset_id}/pairs/{pair['id']}").json() == pair
    for sha256 in (pair["chosen_sha256"], pair["rejected_sha256"]):
        assert hashlib.sha256(blobs.read(sha256)).hexdigest() == sha256
    assert list(settings.upload_directory.iterdir()) == []


def test_a_pair_needs_no_rejected_image_and_blank_fields_are_absent_ones(client: TestClient, dataset_id: str) -> None:
    fields = {"prompt": "a fox", "split": "", "weight": " ", "annotator": "", "seed": ""}
    pair = send(client, dataset_id, fields, chosen=CHOSEN).json()
    names = ("rejected_sha256", "split", "weight", "annotator", "seed")
    assert [pair[name] for name in names] == [None] * 5


def test_a_prompt_may_be_as_long_as_in_an_archive(client: TestClient, dataset_id: str) -> None:
    assert send(client, dataset_id, {"prompt": "🦊" * 4000}, chosen=CHOSEN).json()["prompt"] == "🦊" * 4000
    for longer in ("a" * 4001, "🦊" * 4001):
        assert refused(send(client, dataset_id, {"prompt": longer}, chosen=CHOSEN)) == {"prompt": "invalid_value"}


def test_a_photo_with_orientation_and_profile_becomes_what_it_shows(
    client: TestClient, dataset_id: str, blobs: Blobs
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = encoded(Image.new("RGB", (90, 60), "red"), "JPEG", exif=exif, icc_profile=b"no profile")
    pair = send(client, dataset_id, chosen=photo).json()
    with Image.open(io.BytesIO(blobs.read(pair["chosen_sha256"]))) as kept:
        assert (kept.format, kept.size) == ("PNG", (60, 90))
    assert {warning["code"] for warning in pair["warnings"]} == {"image_small", "image_profile"}
    assert all(warning["row"] == pair["number"] for warning in pair["warnings"])


def test_what_a_pair_shows_by_itself_is_reported_at_once(client: TestClient, dataset_id: str) -> None:
    near = png((200, 30, 60)), png((200, 30, 61))
    pair = send(client, dataset_id, {"prompt": "fox " * 100}, chosen=near[0], rejected=near[1]).json()
    assert [warning["code"] for warning in pair["warnings"]] == ["prompt_truncated", "pair_near_identical"]


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "image_truncated"),
        (CHOSEN[: len(CHOSEN) // 2], "image_truncated"),
        (encoded(Image.new("RGB", (80, 80)), "GIF"), "image_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format"),
        (encoded(Image.new("1", (8000, 8000)), "PNG"), "image_too_large"),
        (
            encoded(Image.new("RGB", (8, 8)), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
            "image_animated",
        ),
        (zip_of([("a.png", CHOSEN)]), "archive_limits"),
        (b"not an image", "image_unreadable"),
    ],
)
@pytest.mark.parametrize("column", ["chosen", "rejected"])
def test_an_image_is_refused_as_in_an_archive(
    client: TestClient, dataset_id: str, settings: Settings, column: str, image: bytes, code: str
) -> None:
    images: dict[str, Any] = {"chosen": CHOSEN} | {column: image}
    answer = send(client, dataset_id, **images)
    assert refused(answer) == {column: code}
    assert answer.json()["error"]["message"].startswith(f"{column}: the image ")
    assert client.get(f"{DATASETS}/{dataset_id}").json()["revision"] == 1
    assert list(settings.upload_directory.iterdir()) == []


def test_an_image_file_over_the_cap_is_refused(
    client: TestClient, dataset_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_images, "LIMITS", Limits(image_bytes=len(CHOSEN)))
    assert send(client, dataset_id, chosen=CHOSEN).status_code == 200
    assert refused(send(client, dataset_id, chosen=CHOSEN + b"1")) == {"chosen": "image_too_large"}


def test_chosen_and_rejected_must_differ_once_they_are_normalised(client: TestClient, dataset_id: str) -> None:
    tagged = encoded(Image.open(io.BytesIO(CHOSEN)), "PNG", exif=Image.Exif())
    for same in (CHOSEN, tagged, CHOSEN + b"more"):
        assert refused(send(client, dataset_id, chosen=CHOSEN, rejected=same)) == {"rejected": "pair_identical"}


def test_every_fault_of_fields_and_images_is_reported_at_once(client: TestClient, dataset_id: str) -> None:
    fields = {"prompt": " ", "split": "test", "weight": "0", "annotator": "a" * 201, "seed": "-1", "colour": "red"}
    found = refused(send(client, dataset_id, fields, chosen=b"GIF89a", rejected=b""))
    assert found == {
        "prompt": "missing_field",
        "split": "invalid_value",
        "weight": "invalid_value",
        "annotator": "invalid_value",
        "seed": "invalid_value",
        "colour": "unknown_field",
        "chosen": "image_format",
        "rejected": "image_truncated",
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"weight": "nan"}, "weight"),
        ({"weight": "inf"}, "weight"),
        ({"weight": "heavy"}, "weight"),
        ({"seed": "1.5"}, "seed"),
        ({"seed": str(2**63)}, "seed"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": b"\xff\xfe"}, "prompt"),
        ({"annotator": "a\0b"}, "annotator"),
        ({"prompt": ["a fox", "a house"]}, "prompt"),
        ({"weight": "2" + " " * 20_000}, "weight"),
    ],
)
def test_a_field_that_cannot_be_stored_as_it_is_is_refused(
    client: TestClient, dataset_id: str, fields: dict[str, Any], param: str
) -> None:
    assert refused(send(client, dataset_id, {"prompt": "a fox"} | fields, chosen=CHOSEN)) == {param: "invalid_value"}


def test_a_form_without_images_or_with_text_instead_is_refused(client: TestClient, dataset_id: str) -> None:
    assert refused(send(client, dataset_id, rejected=CHOSEN)) == {"chosen": "missing_field"}
    path = f"{DATASETS}/{dataset_id}/pairs"
    two = client.post(path, data={"prompt": "a"}, files=[("chosen", ("a", CHOSEN)), ("chosen", ("b", REJECTED))])
    assert refused(two) == {"chosen": "invalid_value"}
    text = client.post(path, data={"prompt": "a", "chosen": "a.png"}, files={"rejected": ("a", CHOSEN)})
    assert refused(text) == {"chosen": "invalid_value"}
    assert client.post(path, json={"prompt": "a"}).json()["error"]["code"] == "invalid_form"


def test_the_same_image_is_one_blob_however_often_it_is_used(client: TestClient, dataset_id: str) -> None:
    first, second = add(client, dataset_id, 1, 2), add(client, dataset_id, 2, 1)
    assert (first["chosen_sha256"], first["rejected_sha256"]) == (second["rejected_sha256"], second["chosen_sha256"])


def test_pairs_that_come_at_once_are_all_there(live: Live) -> None:
    headers = {"authorization": f"Bearer {live.tenant.api_key}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=60) as client:
        dataset_id = client.post(DATASETS, json={"name": "busy"}).json()["id"]
        with ThreadPoolExecutor(12) as pool:
            adds = [pool.submit(send, client, dataset_id, {"prompt": str(n)}, chosen=image_file(n)) for n in range(24)]
            answers = [one.result() for one in adds]
        assert [answer.status_code for answer in answers] == [200] * 24
        assert sorted(answer.json()["added_in"] for answer in answers) == list(range(2, 26))
        pairs = client.get(f"{DATASETS}/{dataset_id}/pairs", params={"limit": 100}).json()["data"]
        assert [pair["number"] for pair in pairs] == list(range(1, 25))
        assert {pair["prompt"] for pair in pairs} == {str(n) for n in range(24)}


def test_neither_a_stranger_nor_a_wrong_address_is_listened_to(live: Live) -> None:
    length = "content-length: 100000000"
    with open_request.request(live, f"{DATASETS}/ds-none/pairs", length) as connection:
        assert open_request.answer(connection) == (401, "invalid_api_key")
    with open_request.request(live, f"{DATASETS}/ds-none/pairs", length, key=live.tenant.api_key) as connection:
        assert open_request.answer(connection) == (404, "dataset_not_found")
    over = f"content-length: {PAIR_BYTES + FORM_OVERHEAD + 1}"
    with open_request.request(live, f"{DATASETS}/ds-none/pairs", over, key=live.tenant.api_key) as connection:
        assert open_request.answer(connection) == (413, "request_too_large")


Create = Callable[[TestClient, str, str, str, int], Answer]


def _dataset(client: TestClient, dataset_id: str, file_id: str, key: str, variant: int) -> Answer:
    return client.post(DATASETS, json={"name": f"{variant}"}, headers={"idempotency-key": key})


def _file(client: TestClient, dataset_id: str, file_id: str, key: str, variant: int) -> Answer:
    space = " " * variant
    body = f'{{"file_id":{space}"{file_id}"}}'
    return client.post(f"{DATASETS}/{dataset_id}/files", content=body, headers={"idempotency-key": key})


def _pair(client: TestClient, dataset_id: str, file_id: str, key: str, variant: int) -> Answer:
    return send(client, dataset_id, headers={"idempotency-key": key}, chosen=image_file(variant))


@pytest.mark.parametrize("post", [_dataset, _file, _pair])
def test_a_change_sent_again_with_its_key_happens_once(
    client: TestClient, dataset_id: str, sessions: Sessions, blobs: Blobs, project: Tenant, post: Create
) -> None:
    file_id = processed_file(sessions, blobs, project.id)
    first, again = (post(client, dataset_id, file_id, "once", 1) for _ in range(2))
    assert (first.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    other = post(client, dataset_id, file_id, "once", 2)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    changed = client.get(f"{DATASETS}/{dataset_id}").json()["revision"]
    assert changed == (1 if post is _dataset else 2)
    assert len(client.get(DATASETS).json()["data"]) == (2 if post is _dataset else 1)
    if post is not _dataset:  # the same change of another dataset is another request
        elsewhere = create(client)["id"]
        assert post(client, elsewhere, file_id, "once", 1).status_code == 422
