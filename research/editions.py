"""The three editions of the benchmark: resume the stored results, run everything fresh, or a quick subset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from research.plan import SWEPT_DOMAIN, WHOLE, Scope
from research.trial import Results

BASE = Path("demo/base/emoji-xl")
STORED = Results(Path(__file__).parent / "results")
HOME = Path("var/benchmark")
QUICK = Scope((SWEPT_DOMAIN,), ("dpo", "mapo"), seeds=(1, 2), sweeps=False, chosen_by=STORED)

EditionName = Literal["kept", "fresh", "quick"]
EDITIONS: tuple[EditionName, ...] = ("kept", "fresh", "quick")


@dataclass(frozen=True)
class Edition:
    """``home`` holds what can be made again: run directories, the cache, claims, strips of samples. The page's
    pictures lie beside ``page`` as it links them."""

    name: EditionName
    home: Path
    results: Results
    scope: Scope
    page: Path

    @property
    def pictures(self) -> Path:
        return self.page.parent / "images" / "benchmark"


def edition(name: EditionName, home: Path | None = None) -> Edition:
    """``home``: another place than its own under var/benchmark."""
    if name == "kept":
        return Edition(name, home or HOME, STORED, WHOLE, Path("docs/benchmark.md"))
    home = home or HOME / name
    scope = QUICK if name == "quick" else WHOLE
    return Edition(name, home, Results(home / "results"), scope, home / "benchmark.md")
