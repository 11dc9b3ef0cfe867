from __future__ import annotations

import pytest

from api.http.paging import cut

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("found", "more"), [(0, False), (1, False), (2, False), (3, True)])
def test_there_is_more_only_where_the_query_found_one_row_beyond_the_page(found: int, more: bool) -> None:
    rows = list(range(found))
    assert cut(rows, 2) == (rows[:2], more)
