"""The commands of docs/guides/datasets.md, one after the other, against a real server and real intake."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from store.settings import REPOSITORY
from tests.api.dataset_steps import image_file
from tests.api.serving import Live
from tests.intake.build import good_files, zip_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's commands are curl's"),
]


def test_the_guides_commands_run(live: Live, reading: None, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "guides" / "datasets.md").read_text(encoding="utf-8")
    commands = "\n".join(re.findall(r"```bash\n(.*?)```", guide, re.DOTALL))
    for ours, here in (("http://127.0.0.1:8000", live.url), ("emoji-xl", "tiny")):
        assert ours in commands
        commands = commands.replace(ours, here)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "local.key").write_text(live.tenant.api_key + "\n")
    for seed, name in enumerate(("fox-1", "fox-2", "lighthouse")):
        (tmp_path / f"{name}.png").write_bytes(image_file(seed))
    (tmp_path / "pairs.zip").write_bytes(zip_of(good_files().items()))
    strict = ["bash", "-euo", "pipefail", "-c", commands]
    ran = subprocess.run(strict, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^ds-[0-9a-f]{32}@5$", ran.stdout, re.MULTILINE)
    assert "dataset: 2 rows read, 2 pairs kept." in ran.stdout
    assert '"what":"1 pair added"' in ran.stdout
    assert "pair 1 removed" in ran.stdout
    with Image.open(tmp_path / "fox.webp") as image:
        assert image.format == "WEBP"
