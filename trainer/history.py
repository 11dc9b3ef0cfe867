"""``metrics.jsonl``: a line per step and per validation, which a resumed run continues as if never stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.durable import explain_disk_full, write_file

Row = dict[str, float | int | str]


@dataclass(frozen=True)
class History:
    path: Path

    def keep_until(self, step: int, *, validated: bool) -> None:
        """Drop what a checkpoint of ``step`` does not include."""
        if not self.path.exists():
            return
        kept: list[str] = []
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # half a line, from a process killed while writing
            row = json.loads(line)
            if row["step"] < step or (row["step"] == step and (validated or row["kind"] == "train")):
                kept.append(line)
        write_file(self.path, "".join(kept).encode())

    def append(self, rows: Sequence[Row]) -> None:
        with explain_disk_full(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def sync(self) -> None:
        """To be called before a checkpoint relies on the lines so far."""
        with explain_disk_full(self.path), self.path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())
