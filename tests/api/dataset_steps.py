"""What tests do to datasets: make one, add pairs over HTTP, and a processed file as intake leaves it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from typing import Any

import httpx
import httpx2
from PIL import Image
from starlette.testclient import TestClient

from intake import PreparedPair
from store.blobs.blobs import Blobs
from store.database import Sessions
from store.files import file_leases
from tests.api.conftest import add_file
from tests.intake.build import encoded

DATASETS = "/v1/datasets"
# Of a server with a socket, and of one in this process: starlette's client is httpx2's.
Answer = httpx.Response | httpx2.Response


def image_file(seed: int, size: tuple[int, int] = (80, 64)) -> bytes:
    """A PNG of noise that no other seed makes."""
    return encoded(Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1])))


def create(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post(DATASETS, json={"name": "foxes"} | fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def send(
    client: TestClient | httpx.Client,
    dataset_id: str,
    fields: dict[str, Any] | None = None,
    *,
    headers: dict[str, str] | None = None,
    **images: bytes,
) -> Answer:
    files = {name: (f"{name}.png", content) for name, content in images.items()}
    data = {"prompt": "a red fox"} if fields is None else fields
    return client.post(f"{DATASETS}/{dataset_id}/pairs", data=data, files=files, headers=headers)


def add(client: TestClient, dataset_id: str, *seeds: int, **fields: Any) -> dict[str, Any]:
    """A pair of the images of one or two seeds."""
    images: dict[str, Any] = dict(zip(("chosen", "rejected"), map(image_file, seeds), strict=False))
    answer = send(client, dataset_id, {"prompt": "a red fox"} | fields, **images)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def processed_file(sessions: Sessions, blobs: Blobs, project_id: str, *pairs: PreparedPair) -> str:
    """The images of the pairs are to be stored already, if anybody looks at them."""
    file = add_file(sessions, project_id, status="uploaded")
    document = b"".join(json.dumps(asdict(pair)).encode() + b"\n" for pair in pairs)
    with sessions.begin() as session:
        owned = file_leases.claim(session, file.id, lease_seconds=60)
        assert owned is not None
        listed = blobs.put_bytes(document)
        file_leases.finish(
            session, owned, status="processed", details=None, pairs_sha256=listed.sha256, pairs_count=len(pairs)
        )
    return file.id


def refused(answer: Answer) -> dict[str | None, str]:
    """Of a 400 every fault's code by its field."""
    assert answer.status_code == 400, answer.text
    return {field_error["param"]: field_error["code"] for field_error in answer.json()["error"]["errors"]}
