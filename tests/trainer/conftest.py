from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.tiny_sdxl import save_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SDXL pipeline on disk; not to be changed."""
    return save_base(tmp_path_factory.mktemp("base"))
