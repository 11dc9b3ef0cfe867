from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from cli.local.log_files import keep_small
from tests.api.polling import until
from worker.runtime import process

pytestmark = pytest.mark.unit
MAX_BYTES = 10_000
ECHO = "import sys\nfor line in open(sys.argv[1]): print(line, end='', flush=True)"


def ends_with(log: Path, line: str) -> bool:
    return log.read_text().endswith(line)


def test_a_log_that_has_grown_is_emptied_while_its_service_writes_and_one_older_file_stays(tmp_path: Path) -> None:
    log, lines = tmp_path / "service.log", tmp_path / "lines"
    os.mkfifo(lines)
    command = [sys.executable, "-c", ECHO, str(lines)]
    service = process.start_logged(command, cwd=tmp_path, log=log, environment=os.environ)
    with lines.open("w", buffering=1) as said:
        for number in range(4):
            line = f"{number}" * MAX_BYTES + "\n"
            said.write(line)
            until(partial(ends_with, log, line))
            keep_small([log], max_bytes=MAX_BYTES)
            assert log.read_text() == ""
            assert (tmp_path / "service.log.1").read_text() == line
        said.write("small\n")
        until(partial(ends_with, log, "small\n"))
        keep_small([log], max_bytes=MAX_BYTES)
    assert log.read_text() == "small\n"
    assert service.wait(10) == 0


def test_a_log_that_is_not_there_yet_is_no_trouble(tmp_path: Path) -> None:
    keep_small([tmp_path / "none.log"])
