"""The examples of docs/reference/http-api.md, one after the other, against a real server and workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from store.blobs.blobs import Blobs
from store.hints import Hints
from store.settings import REPOSITORY, Settings
from tests.api.serving import Live
from tests.intake.build import good_files, zip_of
from tests.trainer.tiny_sdxl import save_base
from tests.worker.studio import studio
from worker.resources import Resources

pytestmark = pytest.mark.integration


def test_the_guides_sdk_examples_run(live: Live, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
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


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's commands are curl's")
def test_the_guides_commands_run(live: Live, reading: None, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", guide, re.DOTALL))
    for ours, here in (("http://127.0.0.1:8000", live.url), ("emoji-xl", "tiny")):
        assert ours in commands
        commands = commands.replace(ours, here)
    archive = zip_of(good_files().items())
    (tmp_path / "pairs.zip").write_bytes(archive)
    (tmp_path / "pairs-again.zip").write_bytes(archive[:100])  # as if a first try had been broken off
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "local.key").write_text(live.tenant.api_key + "\n")
    strict = ["bash", "-euo", "pipefail", "-c", commands]
    ran = subprocess.run(strict, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "pairs-again.zip").read_bytes() == archive
    assert '"status":"paused"' in ran.stdout
    assert "event: done" in ran.stdout
