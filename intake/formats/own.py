"""Our own columns: every field of ``intake.rows.Row`` by its name, or by one that means the same."""

from __future__ import annotations

from collections.abc import Iterator

from intake.findings import Finding
from intake.formats.columns import own_columns
from intake.formats.judgement import Fields, Judgement, Layout, Names

REQUIRED = frozenset({"prompt", "chosen"})


def translate(number: int, fields: Fields, _file: str, names: Names) -> Iterator[Judgement | Finding]:
    yield Judgement(number, fields, columns=names)


OWN = Layout(
    "pairtune",
    REQUIRED,
    translate,
    more=frozenset({"rejected", "split", "weight", "annotator", "seed"}),
    images=frozenset({"chosen", "rejected"}),
    finder=own_columns,
)
