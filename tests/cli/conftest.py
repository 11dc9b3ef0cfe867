"""The live API of tests/api. It is imported when a test first asks for it: most tests of the CLI need no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.api.serving import Live


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    from tests.api.serving import MAX_UPLOAD, serving

    with serving(tmp_path_factory.mktemp("live"), postgres_url, valkey_url, max_upload_bytes=MAX_UPLOAD) as server:
        yield server
