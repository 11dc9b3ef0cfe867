"""The example of docs/guides/move-from-openai.md, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from store.settings import REPOSITORY
from tests.api.serving import Live

pytestmark = pytest.mark.integration


def test_the_guides_example_makes_a_job(live: Live, tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs" / "guides" / "move-from-openai.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "pairs.zip").write_bytes(b"pairs")
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "local.key").write_text(live.tenant.api_key + "\n")
    for ours, here in (("http://127.0.0.1:8000", live.url), ("emoji-xl", "tiny")):
        assert ours in example
        example = example.replace(ours, here)
    shown = (
        example + "print(job.status, job.model, job.seed, job.metadata, job.method.type, job.to_dict()['adapter'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", shown], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("validating_files tiny 7 {'team': 'icons'} mapo")
    assert "'rank': 16" in ran.stdout
