"""What the report says of the search that it kept."""

from __future__ import annotations

import pytest

from demo.emoji_xl import TARGETS
from demo.run import METHOD, OPTIONS
from research.data import BATCH, RANK, STEPS
from research.editions import STORED
from research.page.searched import at_edge, choices, search_section
from research.plan import WHOLE, chosen
from trainer.spec.methods import PRESET_BETAS

pytestmark = pytest.mark.unit


def test_a_value_is_at_an_edge_where_nothing_was_tried_on_one_side() -> None:
    assert at_edge(1.0, [1.0, 8.0, 64.0])
    assert not at_edge(8.0, [1.0, 8.0, 64.0])
    assert at_edge(8.0, [8.0])


def test_every_choice_at_an_edge_is_marked() -> None:
    rows = [line for line in search_section(STORED) if line.startswith("| ") and "(edge)" in line]
    found = list(choices(STORED))
    assert sum(line.count("(edge)") for line in rows) == sum(one.rate_at_edge + one.beta_at_edge for one in found) > 0


def test_the_demo_trains_by_what_the_search_chose_for_its_domain() -> None:
    best = chosen("style", "mapo", WHOLE, STORED)
    assert best is not None
    requested = METHOD["mapo"]["hyperparameters"]  # type: ignore[index]
    assert requested["learning_rate"] == best.learning_rate
    assert requested["preset"] == "style"
    assert (requested["max_steps"], requested["batch_size"]) == (STEPS, BATCH)
    assert OPTIONS["adapter"] == {"rank": RANK, "target_modules": list(TARGETS)}
    assert best.beta == PRESET_BETAS["style"]
