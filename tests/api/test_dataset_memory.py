"""What large images and very many pairs take of the server's memory, and that it is given back."""

from __future__ import annotations

import json
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from api.datasets.pair_images import DECODED_AT_ONCE
from api.datasets.pair_lists import materialise, pairs_of
from api.datasets.review import measure_missing, with_images
from api.dependencies import open_dependencies
from store.blobs.blobs import Blobs
from store.datasets import datasets, image_facts
from store.datasets.datasets import NewPair
from store.datasets.image_facts import MeasuredImage
from store.settings import Settings
from tests.api.dataset_steps import DATASETS, send
from tests.api.serving import serving
from tests.conftest import Tenant
from tests.intake.build import encoded, png

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc"),
]
MIB = 2**20
PIXELS = 4000 * 4000
BYTES_A_PIXEL = 17  # intake's conversion of an image with transparency


def resident(pid: int, figure: str) -> int:
    """VmRSS (now) or VmHWM (the peak), in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(figure))


def test_large_images_take_turns_and_their_memory_is_given_back(
    tmp_path: Path, postgres_url: str, valkey_url: str
) -> None:
    large = encoded(Image.new("RGBA", (4000, 4000), (200, 30, 60, 128)))
    with serving(tmp_path, postgres_url, valkey_url) as live:
        headers = {"authorization": f"Bearer {live.tenant.api_key}"}
        with httpx.Client(base_url=live.url, headers=headers, timeout=60) as client:
            dataset_id = client.post(DATASETS, json={"name": "large"}).json()["id"]
            send(client, dataset_id, chosen=png())  # what the first request loads is not the images'
            before = resident(live.pid, "VmRSS")
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda _: send(client, dataset_id, chosen=large), range(6)))
            assert [answer.status_code for answer in answers] == [200] * 6
            at_once = DECODED_AT_ONCE * PIXELS * BYTES_A_PIXEL
            assert resident(live.pid, "VmHWM") - before < at_once + 64 * MIB
            assert resident(live.pid, "VmRSS") - before < 64 * MIB


def test_many_pairs_are_added_listed_for_a_job_and_reviewed_some_at_a_time(
    settings: Settings, project: Tenant, blobs: Blobs
) -> None:
    """Their prompts alone are more than what all of it may take."""
    count, words = 4_000, "fox " * 1_000
    chosen, rejected = ("a" * 64, "b" * 64)
    row = {"chosen": chosen, "rejected": rejected, "split": None, "weight": None, "annotator": None, "seed": None}
    lines = [json.dumps({"row": number, "prompt": f"{number} {words}"} | row) for number in range(1, count + 1)]
    listed = blobs.put_bytes("".join(f"{line}\n" for line in lines).encode())
    del lines
    with open_dependencies(settings) as dependencies:
        with dependencies.sessions.begin() as session:
            image_facts.save(session, [MeasuredImage(sha256, 8, 8, bytes(192)) for sha256 in (chosen, rejected)])
        tracemalloc.start()
        try:
            with dependencies.sessions.begin() as session:
                pairs = (NewPair(one.prompt, one.chosen, one.rejected) for one in pairs_of(blobs, listed.sha256))
                dataset = datasets.create(session, project.id, "many", None, pairs)
            with dependencies.sessions.begin() as session:
                revision = datasets.revision(session, dataset, None)
                materialise(session, blobs, revision)
            measure_missing(dependencies, revision)
            with dependencies.sessions() as session:
                seen = sum(1 for _ in with_images(session, revision))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (seen, dataset.pairs_count) == (count, count)
    assert revision.pairs_sha256 == listed.sha256
    assert peak < count * len(words) * 3 / 4
