from __future__ import annotations

import numpy as np
import pytest

from demo.emoji import scorers as module
from demo.emoji import subject
from demo.emoji.domains import DOMAINS, telling
from demo.emoji.drawings import degrade
from demo.emoji.scorers import LABELS, Scorers, load_scorers

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def judges() -> Scorers:
    return load_scorers()


def test_the_committed_judges_are_as_good_as_their_card_says(judges: Scorers) -> None:
    measured = module._accuracy(judges.rendition, *module._real("test"))
    assert measured == judges.accuracies.rendition
    assert judges.accuracies.rendition.share >= 0.98
    assert judges.accuracies.identity.share >= 0.98


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_a_chosen_drawing_scores_high_and_a_rejected_one_low(judges: Scorers, name: str) -> None:
    domain = DOMAINS[name]  # type: ignore[index]
    label, shown = LABELS.index(domain.wanted), telling(domain, "test")
    chosen = judges.renditions([domain.chosen(one) for one in shown])[:, label].mean()
    rejected = judges.renditions([domain.rejected(one) for one in shown])[:, label].mean()
    assert chosen > 0.85
    assert rejected < 0.2


def test_the_subject_is_distinguished_from_everything_else(judges: Scorers) -> None:
    score = judges.renditions([subject.draw(pose) for pose in subject.TEST])[:, LABELS.index("subject")]
    assert score.min() > 0.9


def test_a_drawing_is_recognised_in_every_style_and_not_when_it_is_another(judges: Scorers) -> None:
    domain = DOMAINS["style"]
    shown = telling(domain, "test")
    seen = judges.shown([domain.chosen(one) for one in shown])
    assert np.array_equal(seen, judges.shown([domain.rejected(one) for one in shown]))
    assert len(set(seen.tolist())) == len(shown)


def test_a_half_coloured_drawing_counts_about_half(judges: Scorers) -> None:
    from PIL import Image

    domain, label = DOMAINS["style"], LABELS.index("line")
    blends = [Image.blend(domain.rejected(one), domain.chosen(one), 0.5) for one in telling(domain, "test")]
    assert 0.3 < judges.renditions(blends)[:, label].mean() < 0.8


def test_broken_line_art_is_not_taken_for_line_art(judges: Scorers) -> None:
    domain, label = DOMAINS["style"], LABELS.index("line")
    blurred = [degrade(domain.chosen(one), "blur", seed=0) for one in telling(domain, "test")]
    assert judges.renditions(blurred)[:, label].mean() < 0.3
