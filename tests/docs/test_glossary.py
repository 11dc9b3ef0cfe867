"""The glossary, and that the words which its terms replaced do not come back as names or in prose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "development" / "glossary.md"
PACKAGES = (
    "api",
    "benchmarks",
    "cli",
    "demo",
    "intake",
    "migrations",
    "research",
    "store",
    "tests",
    "trainer",
    "worker",
)
REPLACED = (
    r"MOST_[A-Z]+",
    r"\bArtist\b",
    r"\bCommission",
    r"\bcarry_out\b",
    r"\bcheck[-_ ]up",
    r"\breckon",
    r"\blook_up",
    r"\bappetite",
    r"\bwhereabouts\b",
    r"\bdurable\.",
    r"\bleftovers\b",
    r"\bheard_by\b",
    r"\bRefused\b",
    r"\bjoin_world\b",
    r"\bPatience\b",
    r"\bsettle\(",
    r"\bSettled\b",
    r"class World\b",
    r"class Told\b",
    r"class News\b",
    r"class Watch\b",
    r"\bdata[ _]sets?\b",
    r"\b[Ll]earner\b",
    r"\bhears?\b",
)


def test_sixty_terms_have_a_line_each_and_none_has_two() -> None:
    terms = re.findall(r"^\| ([a-z][^|]*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    terms = [term for term in terms if term != "term"]
    assert len(terms) >= 60
    assert len(set(terms)) == len(terms)


@pytest.mark.parametrize("word", REPLACED)
def test_a_replaced_word_is_gone(word: str) -> None:
    command = ["git", "ls-files", *PACKAGES, "docs", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    own = Path(__file__).resolve()
    files = [ROOT / name for name in listed.stdout.split() if name.endswith((".py", ".md"))]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.exists() and path != own
        for match in re.finditer(word, path.read_text(encoding="utf-8"))
    ]
    assert found == []
