"""Our own columns: every field of ``intake.rows.Row`` by its name."""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.judgement import Fields, Judgement, Layout


def translate(number: int, fields: Fields, _file: str) -> Iterator[Judgement | Finding]:
    yield Judgement(number, fields)


OWN = Layout("pairtune", frozenset({"prompt", "chosen"}), translate)
