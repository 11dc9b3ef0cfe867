from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from intake import Code, Finding, Policy, PreparedPair, PreparedUpload, Report
from intake.findings import ADVICE, FindingList, printable
from intake.review import Review

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "findings.md"
PAIR = PreparedPair(1, "p", "a" * 64, "b" * 64)
ERROR, WARNING = Finding("row_invalid", "error", "m"), Finding("column_unknown", "warning", "m")


def test_every_code_stands_in_the_docs_with_what_was_found_and_the_advice() -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## Findings")[2]
    documented = re.findall(r"^\| `(\w+)` \| (?:error|warning|either) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    assert {code: advice for code, _, advice in documented} == dict(ADVICE)
    assert len(documented) == len(ADVICE)


@pytest.mark.parametrize("code", get_args(Code))
def test_every_code_has_advice_in_the_report_as_json_and_in_words(code: Code) -> None:
    assert re.fullmatch(r"[A-Z].{10,}\.", ADVICE[code])
    findings = (Finding(code, "error", "m", "f", 1), Finding(code, "error", "n", "f", 2))
    report = Report("archive", 0, 0, {}, Review("").figures(), findings)
    shown = json.loads(json.dumps(report.as_json()))
    assert [finding["advice"] for finding in shown["findings"]] == [ADVICE[code]] * 2
    assert Report.from_json(shown) == report
    assert report.in_words().endswith(f"error: {code}: n\nWhat to do:\n  {code}: {ADVICE[code]}\n")


def test_a_report_of_an_older_version_is_read() -> None:
    report = Report("archive", 0, 0, {}, Review("").figures(), (WARNING,))
    stored = report.as_json()
    del stored["findings"][0]["advice"]
    assert Report.from_json(stored) == report


def test_a_report_without_findings_advises_nothing() -> None:
    assert "What to do" not in Report("archive", 0, 0, {}, Review("").figures()).in_words()


@pytest.mark.parametrize(
    ("pairs", "findings", "usable"),
    [((PAIR,), (), True), ((PAIR,), (WARNING,), True), ((PAIR,), (WARNING, ERROR), False), ((), (), False)],
)
def test_usable_means_pairs_and_no_error(
    pairs: tuple[PreparedPair, ...], findings: tuple[Finding, ...], usable: bool
) -> None:
    report = Report("archive", len(pairs), len(pairs), {}, Review("").figures(), findings)
    assert PreparedUpload(Path(), len(pairs), {}, report).usable is usable


def test_a_list_at_its_limit_omits_nothing() -> None:
    findings = FindingList(2, Policy())
    findings.extend([ERROR, WARNING])
    assert set(findings) == {ERROR, WARNING}


def test_what_explains_the_others_comes_first_and_is_not_hidden_by_the_limit() -> None:
    rows = [Finding("row_invalid", "error", f"t row {row}: reason {row}.", "t", row) for row in range(1, 6)]
    cause = Finding("metadata_columns", "error", "t has no column chosen.", "t")
    findings = FindingList(3, Policy())
    findings.extend([*rows, WARNING, cause])
    assert [one.code for one in findings] == [
        "column_unknown", "metadata_columns", "row_invalid", "row_invalid", "row_invalid", "findings_omitted",
    ]  # fmt: skip


def test_one_fault_of_many_rows_is_one_finding_that_lists_them() -> None:
    findings = FindingList(2, Policy())
    rows = [1, 2, 3, 7, 9, *range(20, 40)]
    findings.extend(Finding("row_invalid", "error", f"t row {row}: it is wrong.", "t", row) for row in rows)
    [finding] = findings
    assert (finding.row, finding.message) == (
        1, "t row 1: it is wrong. The same in 24 more rows (2-3, 7, 9, 20-39).",
    )  # fmt: skip
    assert findings.errors


def test_what_is_said_of_each_pair_is_not_joined() -> None:
    findings = FindingList(5, Policy())
    findings.extend(Finding("pair_near_identical", "warning", f"t row {row}: alike.", "t", row) for row in (1, 2))
    assert [one.row for one in findings] == [1, 2]


def test_omitted_warnings_do_not_make_an_error() -> None:
    findings = FindingList(1, Policy())
    findings.extend([WARNING, WARNING])
    assert [(finding.code, finding.severity) for finding in findings][1:] == [("findings_omitted", "warning")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),
        ("\u72d0", "\u72d0"),
        ("a\0\n", "a\\x00\\n"),
        ("\ud800", "\\ud800"),
        ("x" * 121, "x" * 117 + "..."),
    ],
)
def test_printable_escapes_what_cannot_be_stored_or_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
