"""The images of pairs, whole and as thumbnails."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.datasets import image_routes
from api.datasets.pair_images import thumbnail
from store.blobs.blobs import Blobs
from tests.api.dataset_steps import DATASETS, add, create, image_file, send
from tests.api.polling import until
from tests.api.serving import Live
from tests.conftest import Tenant, make_tenant
from tests.intake.build import encoded

pytestmark = pytest.mark.integration
LARGE = Image.open(io.BytesIO(image_file(1, (900, 300))))


def image_path(pair: dict[str, str], side: str = "chosen") -> str:
    return f"{DATASETS}/{pair['dataset_id']}/pairs/{pair['id']}/images/{side}"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_sent_as_it_is_stored_to_be_cached_for_ever(client: TestClient, blobs: Blobs, format_: str) -> None:
    pair = send(client, create(client)["id"], chosen=encoded(LARGE, format_), rejected=image_file(2)).json()
    answer = client.get(image_path(pair))
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{format_.lower()}")
    assert answer.content == blobs.read(pair["chosen_sha256"])
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == f'"{pair["chosen_sha256"]}"'
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    other = client.get(image_path(pair, "rejected"))
    assert other.headers["etag"] == f'"{pair["rejected_sha256"]}"'
    again = client.get(image_path(pair), headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_thumbnail_has_the_requested_size_and_a_tag_of_its_own(client: TestClient, format_: str) -> None:
    pair = send(client, create(client)["id"], chosen=encoded(LARGE, format_)).json()
    tags = {client.get(image_path(pair)).headers["etag"]}
    for size, shape in ((64, (64, 21)), (300, (300, 100)), (512, (512, 171))):
        answer = client.get(image_path(pair), params={"size": size})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.format, image.size) == ("WEBP", shape)
        tags.add(answer.headers["etag"])
        again = client.get(image_path(pair), params={"size": size}, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
    assert len(tags) == 4


def test_a_small_image_is_not_enlarged(client: TestClient) -> None:
    pair = add(client, create(client)["id"], 1)
    with Image.open(io.BytesIO(client.get(image_path(pair), params={"size": 512}).content)) as image:
        assert image.size == (80, 64)


def test_what_there_is_not_is_not_found_and_what_cannot_be_is_refused(client: TestClient) -> None:
    pair = add(client, create(client)["id"], 1)
    for size in (None, 64):
        answer = client.get(image_path(pair, "rejected"), params={"size": size} if size else {})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "rejected_not_found")
    assert client.get(image_path(pair, "both")).status_code == 400
    for wrong in (63, 513, "large"):
        assert client.get(image_path(pair), params={"size": wrong}).status_code == 400


def test_the_images_of_a_removed_pair_can_be_seen_in_the_revisions_that_hold_it(client: TestClient) -> None:
    pair = add(client, create(client)["id"], 1)
    client.delete(f"{DATASETS}/{pair['dataset_id']}/pairs/{pair['id']}")
    assert client.get(image_path(pair)).status_code == 200


def test_a_thumbnail_is_made_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = add(client, create(client)["id"], 1)
    made: list[int] = []

    def counted(blobs: Blobs, sha256: str, side: int) -> bytes:
        made.append(side)
        return thumbnail(blobs, sha256, side)

    monkeypatch.setattr(image_routes, "thumbnail", counted)
    answers = {client.get(image_path(pair), params={"size": 99}).content for _ in range(3)}
    assert (len(answers), made) == (1, [99])
    client.get(image_path(pair), params={"size": 100})
    assert made == [99, 100]


def test_a_pair_is_added_in_its_turn_while_another_project_requests_thumbnails_of_large_images(live: Live) -> None:
    """As seen: a 6 KB PNG of 49 megapixels, forty thumbnails of it, and a pair that waited for all of them."""
    greedy, modest = make_tenant(live.sessions, "greedy"), make_tenant(live.sessions, "modest")
    large = encoded(Image.new("RGB", (7000, 7000), "red"))
    with (
        httpx.Client(base_url=live.url, headers=bearer(greedy), timeout=120) as first,
        httpx.Client(base_url=live.url, headers=bearer(modest), timeout=120) as second,
        ThreadPoolExecutor(20) as pool,
    ):
        pair = send(first, first.post(DATASETS, json={"name": "large"}).json()["id"], chosen=large).json()
        dataset_id = second.post(DATASETS, json={"name": "small"}).json()["id"]
        sizes = range(64, 84)  # each is a thumbnail of its own
        requested = [pool.submit(first.get, image_path(pair), params={"size": size}) for size in sizes]
        until(lambda: any(one.done() for one in requested))
        assert send(second, dataset_id, chosen=image_file(1)).status_code == 200
        assert sum(one.done() for one in requested) < len(sizes) - 2
        assert {one.result().status_code for one in requested} == {200}


def bearer(tenant: Tenant) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant.api_key}"}
