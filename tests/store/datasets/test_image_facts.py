"""What was measured of images is found, and forgotten with the images."""

from __future__ import annotations

import pytest

from store.database import Sessions
from store.datasets import image_facts
from store.datasets.image_facts import MeasuredImage

pytestmark = pytest.mark.integration


def test_only_what_is_named_is_forgotten(sessions: Sessions) -> None:
    facts = {name: MeasuredImage(name, 3, 2, b"print") for name in ("forgotten a", "forgotten b", "kept")}
    with sessions.begin() as session:
        image_facts.save(session, facts.values())
        assert image_facts.find(session, list(facts)) == facts
        image_facts.delete_facts(session, ["forgotten a", "forgotten b", "never measured"])
    with sessions() as session:
        assert image_facts.find(session, list(facts)) == {"kept": facts["kept"]}


def test_more_images_than_one_query_takes_are_all_found(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_facts, "DIGESTS_PER_QUERY", 2)
    facts = {f"one of five {n}": MeasuredImage(f"one of five {n}", n, 2, b"print") for n in range(5)}
    with sessions.begin() as session:
        image_facts.save(session, facts.values())
        assert image_facts.find(session, list(facts)) == facts
