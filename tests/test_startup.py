"""A run imports what its tests need: whoever runs one test of pure code does not wait for the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"alembic", "diffusers", "fastapi", "hypothesis", "schemathesis", "sqlalchemy", "torch", "transformers"}
PROGRAM = f"""
import sys

import pytest

code = pytest.main(sys.argv[1:])
print("imported:", *sorted({HEAVY} & sys.modules.keys()))
sys.exit(code)
"""


@pytest.mark.parametrize("tests", ["tests/trainer/test_buckets.py", "tests/intake/test_findings.py"])
def test_a_test_of_pure_code_imports_no_heavy_library(tests: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--quiet", tests], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "imported:"
