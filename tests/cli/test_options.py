"""``--set``: what becomes of each form, and that nothing typed there ends in a traceback."""

from __future__ import annotations

import json

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from cli.options import request_of, value_of

pytestmark = pytest.mark.unit

NAMES = st.lists(st.sampled_from(["adapter", "token", "rank", "method", ""]) | st.text(max_size=4), max_size=4).map(
    ".".join
)
VALUES = st.sampled_from(["null", "1", "{}", "[]", '{"a": 1}', "NaN", "1e999", '"', "x", "[" * 5000]) | st.text()
CHANGES = st.builds("{}={}".format, NAMES, VALUES) | st.text()


@given(st.lists(CHANGES, max_size=4))
@example(["adapter.token=null", "adapter.token.text=x"])
@example(["adapter.rank=NaN"])
@example(["learning_rate=1e999"])
@example(["learning_rate=" + "9" * 5000])
@example(["adapter.x=" + "[" * 100_000])
def test_whatever_is_typed_is_a_request_or_wrong_usage(changes: list[str]) -> None:
    try:
        body = request_of("mapo", changes)
    except typer.BadParameter:
        return
    json.dumps(body, allow_nan=False)  # as it is sent


def test_a_path_through_a_value_names_both() -> None:
    with pytest.raises(typer.BadParameter, match=r"goes into adapter.token, which another --set makes null"):
        request_of("mapo", ["adapter.token=null", "adapter.token.text=x"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("auto", "auto"), ("true", True), ("null", None), ("[1, 2]", [1, 2]), ("NaN", "NaN"), ("", "")],
)
def test_values_are_json_where_they_can_be(text: str, value: object) -> None:
    assert value_of(text) == value


def test_a_whole_object_is_added_to_by_later_paths() -> None:
    body = request_of("dpo", ['adapter.token={"text": "x"}', "adapter.token.initializer=cat"])
    assert body["adapter"] == {"token": {"text": "x", "initializer": "cat"}}
    assert body["method"] == {"type": "dpo", "dpo": {"hyperparameters": {}}}
