"""Two gloo processes on one machine's CPU, started as two GPUs' would be, against one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import save_run, write_spec
from tests.trainer.warm import ROOT

pytestmark = pytest.mark.integration

METHODS: dict[str, dict[str, Any]] = {"mapo": {"form": "reference-code"}, "dpo": {"beta": 20.0}, "sft": {}}
LENGTH = {"max_steps": 16, "batch_size": 3, "gradient_accumulation": 2, "learning_rate": 5e-4}


def save(directory: Path, base: Path, method: str) -> Path:
    save_run(directory, base)
    write_spec(directory, base, LENGTH | METHODS[method], method=method, checkpoints={"every_steps": 4})
    return directory


def launch(directory: Path, cache: Path) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"num_processes": 2, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
    return subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", str(port)]
        + [word for name, value in options.items() for word in (f"--{name}", str(value))]
        + ["-m", "trainer", "run", str(directory), "--cache", str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def rows(directory: Path, kind: str) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_have_the_losses_of_one_at_the_same_global_batch(
    tiny_base: Path, tmp_path: Path, method: str
) -> None:
    alone, together = (save(tmp_path / name, tiny_base, method) for name in ("alone", "together"))
    assert run_program(alone, tmp_path / "cache-1").returncode == 0
    with launch(together, tmp_path / "cache-2") as process:
        events, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    reported = [json.loads(line)["event"] for line in events.splitlines()]
    assert (reported.count("started"), reported[-1]) == (1, "done")  # the other process keeps silent
    for kind, names in [("train", ["loss", "chosen_loss", "grad_norm"]), ("validation", ["objective", "margin"])]:
        one, two = rows(alone, kind), rows(together, kind)
        assert len(one) == len(two) > 3
        for name in names:
            assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=1e-5)
    adapters = [load_file(run / "output/pytorch_lora_weights.safetensors") for run in (alone, together)]
    for name, tensor in adapters[0].items():
        # Where a gradient is all rounding, AdamW takes its sign for a direction: a few steps' worth of learning rate.
        torch.testing.assert_close(adapters[1][name], tensor, rtol=0, atol=5e-4)


def test_when_one_process_dies_all_end_and_one_alone_can_go_on(tiny_base: Path, tmp_path: Path) -> None:
    straight, broken = (save(tmp_path / name, tiny_base, "mapo") for name in ("straight", "broken"))
    assert run_program(straight, tmp_path / "cache").returncode == 0
    with launch(broken, tmp_path / "cache") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "checkpoint":
                os.kill(other_process(process.pid), signal.SIGKILL)
                break
        process.communicate(timeout=240)
    assert process.returncode != 0
    assert not (broken / "output").exists()
    assert run_program(broken, tmp_path / "cache").returncode == 0
    ours, theirs = ([row["loss"] for row in rows(run, "train")] for run in (broken, straight))
    assert ours == pytest.approx(theirs, abs=1e-5)


def other_process(launcher: int) -> int:
    """The second of the launcher's two processes."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if parent == launcher and b"RANK=1" in environment:
            return int(entry.name)
    raise AssertionError("there is no second process")
