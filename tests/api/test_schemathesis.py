"""Whatever the OpenAPI document allows or forbids, a real server answers as the document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.serving import serving

pytestmark = pytest.mark.integration
PHASES = "examples,coverage,fuzzing,stateful"
EXAMPLES = 10  # of each operation in fuzzing, and sequences of calls in the stateful phase: half a minute


def test_every_check_of_schemathesis_passes(tmp_path: Path, postgres_url: str, valkey_url: str) -> None:
    with serving(tmp_path, postgres_url, valkey_url) as live:
        ran = subprocess.run(
            [
                str(Path(sys.executable).with_name("st")),
                "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
                "run", f"{live.url}/openapi.json",
                "--header", f"Authorization: Bearer {live.tenant.api_key}",
                "--checks", "all", "--phases", PHASES, "--max-examples", str(EXAMPLES),
                "--continue-on-failure", "--request-timeout", "20", "--seed", "1", "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout[-20_000:]
        assert '"level": "error"' not in live.log.read_text()
