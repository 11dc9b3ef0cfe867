"""Checks with their promises, and the two reports of them: one JSON and one page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["pass", "fail", "not run"]
JSON_NAME, PAGE_NAME = "gpu-check.json", "gpu-check.md"


@dataclass(frozen=True)
class Check:
    """``promise`` is empty where a figure is only measured; ``why`` is empty where it was kept."""

    section: str
    name: str
    promise: str
    outcome: Outcome
    measured: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def exit_code(checks: Sequence[Check]) -> int:
    """1 where a promise is broken, and where nothing was checked at all."""
    ran = [check for check in checks if check.outcome != "not run"]
    return int(not ran or any(check.outcome == "fail" for check in ran))


def write_reports(folder: Path, about: Mapping[str, Any], checks: Sequence[Check]) -> None:
    """After every section, so that an interrupted check has reported what it found."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {**about, "checks": [asdict(check) for check in checks]}
    (folder / JSON_NAME).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (folder / PAGE_NAME).write_text(page(about, checks), encoding="utf-8")


def page(about: Mapping[str, Any], checks: Sequence[Check]) -> str:
    counted = {outcome: sum(check.outcome == outcome for check in checks) for outcome in ("pass", "fail", "not run")}
    lines = [
        "# GPU check",
        "",
        f"{counted['pass']} passed, {counted['fail']} failed, {counted['not run']} not run.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {shown(value)} |" for name, value in about.items()),
    ]
    for section in dict.fromkeys(check.section for check in checks):
        lines += ["", f"## {section}", "", "| check | outcome | promise | measured | why |", "|---|---|---|---|---|"]
        for check in checks:
            if check.section == section:
                outcome = "**fail**" if check.outcome == "fail" else check.outcome
                cells = (check.name, outcome, check.promise, shown(check.measured), check.why)
                lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name.replace('_', ' ')} {shown(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def git_commit() -> str:
    """Of the checkout that is checked, with a plus where files differ from it; "unknown" outside of one."""
    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--short"], cwd=root, capture_output=True, text=True, check=False)
    return f"{commit.stdout.strip()}{'+' if changed.stdout else ''}" if commit.returncode == 0 else "unknown"
