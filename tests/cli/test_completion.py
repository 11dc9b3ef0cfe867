"""Completion as bash has it, after what docs/reference/cli.md says to type once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ASK = """
COMP_WORDS=({words}); COMP_CWORD={last}; COMPREPLY=()
$(complete -p pairtune | sed 's/.*-F \\([^ ]*\\) .*/\\1/') pairtune
echo "{words}: ${{COMPREPLY[*]}}"
"""


def test_bash_completes_commands_and_options_once_completion_is_installed(tmp_path: Path) -> None:
    requested = {
        "pairtune tr": "train",
        "pairtune datasets re": "report",
        "pairtune keys create --ro": "--role",
        "pairtune keys create --role r": "read-only",
        "pairtune nothing-of-the-kind": "",
    }
    script = "set -e\npairtune --install-completion\nsource ~/.bashrc\n" + "".join(
        ASK.format(words=words, last=len(words.split()) - 1) for words in requested
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "HOME": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()[-len(requested) :]
    assert lines == [f"{words}: {found}" for words, found in requested.items()]
