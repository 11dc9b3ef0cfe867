"""The mapped tables against the migrated database."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from migrations.upgrade import differences

pytestmark = pytest.mark.integration


def test_the_migrations_build_every_table_column_and_index_of_the_models(engine: Engine) -> None:
    assert differences(engine.url.render_as_string(hide_password=False)) == []
