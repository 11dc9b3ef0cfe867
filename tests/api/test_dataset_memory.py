"""What large images take of the server's memory while they are decoded, and that it is given back."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from api.datasets.pictures import DECODED_AT_ONCE
from tests.api.dataset_steps import DATASETS, send
from tests.api.serving import serving
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
