"""The trainer's own program with a part of the GPU's memory: ``python -m trainer`` as it is, measured from outside.

``python -m benchmarks.gpu_check.limited [--memory-bytes N] --peaks FILE run DIR ...`` runs ``python -m trainer run DIR
...``. FILE then has, as JSON, the peak of each of the process's devices at each time that the trainer resets it, and at
the end; of several processes each writes its own, FILE.RANK.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from trainer.program import prepare_libraries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--memory-bytes", type=int)
    parser.add_argument("--peaks", type=Path, required=True)
    given, arguments = parser.parse_known_args()
    prepare_libraries()  # before torch, as the trainer does
    import torch

    if given.memory_bytes is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, given.memory_bytes / total))
    peaks: list[dict[str, Any]] = []
    reset = torch.cuda.reset_peak_memory_stats

    def record() -> None:
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's stub
            return
        for index in range(torch.cuda.device_count()):
            reserved, allocated = torch.cuda.max_memory_reserved(index), torch.cuda.max_memory_allocated(index)
            peaks.append({"time": time.time(), "device": index, "reserved": reserved, "allocated": allocated})

    def record_and_reset(device: Any = None) -> None:
        record()
        reset(device)

    torch.cuda.reset_peak_memory_stats = record_and_reset
    sys.argv = ["trainer", *arguments]
    try:
        runpy.run_module("trainer", run_name="__main__", alter_sys=True)
    finally:
        record()
        given.peaks.with_suffix(f".{os.environ.get('RANK', '0')}").write_text(json.dumps(peaks), encoding="utf-8")


if __name__ == "__main__":
    main()
