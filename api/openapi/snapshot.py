"""``python -m api.openapi`` prints the OpenAPI document; ``--check`` compares it with docs/openapi.json."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from api.main import create_app
from api.openapi.document import document
from store.settings import Settings

SNAPSHOT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
HINT = "docs/openapi.json is out of date: python -m api.openapi > docs/openapi.json\n"


def render() -> str:
    """Sorted, so that the same routes give the same bytes."""
    return json.dumps(document(create_app(Settings())), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when docs/openapi.json is out of date")
    text = render()
    if not parser.parse_args(arguments).check:
        sys.stdout.write(text)
        return 0
    if SNAPSHOT.exists() and SNAPSHOT.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(HINT)
    return 1
