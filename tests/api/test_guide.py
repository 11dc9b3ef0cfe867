"""The SDK examples of docs/api.md, one after the other as they stand there, against a real server and a worker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from store.blobs import Blobs
from store.hints import Hints
from store.settings import REPOSITORY, Settings
from tests.api.serving import Live
from tests.trainer.tiny_sdxl import save_base
from tests.worker.studio import studio
from worker.resources import Resources

pytestmark = pytest.mark.integration


def test_the_guides_sdk_examples_run(live: Live, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    example = "\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    (tmp_path / "pairs.zip").write_bytes(b"pairs")
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "local.key").write_text(live.tenant.api_key + "\n")
    for ours, here in (("http://127.0.0.1:8000", live.url), ("emoji-xl", "tiny")):
        assert ours in example
        example = example.replace(ours, here)
    save_base(live.home / "tiny")
    settings = Settings(home=live.home)
    drawing = Resources(settings, live.sessions, Blobs(settings.effective_blob_url), Hints("redis://none"), "guide")
    with studio(drawing):
        ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Created; the files are being read." in ran.stdout
    with Image.open(tmp_path / "red-apple.png") as image:
        assert image.size == (32, 32)
