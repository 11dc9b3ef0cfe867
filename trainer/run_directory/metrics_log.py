"""The metrics log, ``metrics.jsonl``: a line per step and per evaluation, which a resumed run continues."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.runtime.atomic_io import explain_disk_full, write_atomically

MetricsRow = dict[str, Any]


def parse_rows(content: bytes) -> list[MetricsRow]:
    return [json.loads(line) for line in content.splitlines()]


@dataclass(frozen=True)
class MetricsLog:
    """A checkpoint stores the lines up to its step, so that a run can resume wherever the checkpoint is."""

    path: Path

    def restore(self, content: bytes) -> None:
        """Back to what a checkpoint holds; nothing at the start of a run."""
        write_atomically(self.path, content)

    def append(self, rows: Sequence[MetricsRow]) -> None:
        with explain_disk_full(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def rows(self) -> list[MetricsRow]:
        return parse_rows(self.read())

    def read(self) -> bytes:
        return self.path.read_bytes()
