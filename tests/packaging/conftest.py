from __future__ import annotations

from tests.api.conftest import live

__all__ = ["live"]
