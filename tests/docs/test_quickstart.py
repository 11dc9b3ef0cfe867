"""docs/quickstart.md trains with the demo's hyperparameters and adapter."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from cli.options import request_of
from demo.run import METHOD, OPTIONS

pytestmark = pytest.mark.unit
PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "quickstart.md").read_text(encoding="utf-8")


def test_the_quickstart_trains_as_the_demo_does() -> None:
    [command] = [text for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "pairtune train" in text]
    words = shlex.split(command)
    request = request_of("mapo", [value for option, value in pairwise(words) if option == "--set"])
    rank = {"rank": 16}  # the default
    assert request["method"] == METHOD
    assert rank | request["adapter"] == OPTIONS["adapter"]
