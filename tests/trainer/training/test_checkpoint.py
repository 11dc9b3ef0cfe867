from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.evaluation.held_out import HeldOutLosses
from trainer.runtime.errors import BadRun
from trainer.training.checkpoint import (
    BestAdapter,
    ResolvedPlan,
    TrainingState,
    newest_checkpoint,
    path_of,
    prune,
    write_checkpoint,
)
from trainer.training.memory_plan import MemoryPlan
from trainer.training.step import GradientScale

pytestmark = pytest.mark.unit


def checkpoint(step: int, best: BestAdapter | None = None) -> TrainingState:
    return TrainingState(
        run="digest",
        step=step,
        validated=True,
        adapter={"a.weight": torch.full((2, 2), float(step))},
        optimizer={"a.weight.exp_avg": torch.ones(2, 2), "a.weight.step": torch.tensor(3.0)},
        base=HeldOutLosses(("p", "q"), (125.0, 500.0, 875.0), torch.rand(2, 3), torch.rand(2, 3)),
        best=best,
        plan=ResolvedPlan(beta=32.0, device="cpu", memory=MemoryPlan(4, gradient_checkpointing=False, streamed=True)),
        metrics_log=b'{"step": 1}\n',
        gradient_scale=GradientScale(512.0, good_steps=7),
    )


def silent(_code: str, _text: str) -> None:
    pass


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint(5, BestAdapter(4, 0.25, {"a.weight": torch.zeros(2, 2)}))
    write_checkpoint(tmp_path, written)
    read = newest_checkpoint(tmp_path, "digest", silent)
    assert read is not None
    assert (read.step, read.validated, read.base.pairs) == (5, True, ("p", "q"))
    assert read.base.timesteps == written.base.timesteps
    assert torch.equal(read.adapter["a.weight"], written.adapter["a.weight"])
    assert torch.equal(read.optimizer["a.weight.step"], torch.tensor(3.0))
    assert torch.equal(read.base.rejected, written.base.rejected)
    assert read.metrics_log == written.metrics_log
    assert read.plan == written.plan
    assert read.gradient_scale == GradientScale(512.0, good_steps=7)
    assert read.best is not None
    assert (read.best.step, read.best.objective, read.best.adapter["a.weight"].sum().item()) == (4, 0.25, 0)


def test_the_first_call_finds_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none", "digest", silent) is None


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors", "metrics.jsonl", "manifest.json"])
def test_damage_to_any_file_falls_back_and_is_set_aside(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    damaged = write_checkpoint(tmp_path, checkpoint(2)) / name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    warnings: list[str] = []
    read = newest_checkpoint(tmp_path, "digest", lambda code, _: warnings.append(code))
    assert read is not None
    assert read.step == 1
    assert warnings == ["checkpoint_damaged"]
    assert not path_of(tmp_path, 2).exists()
    write_checkpoint(tmp_path, checkpoint(2))
    assert path_of(tmp_path, 2).exists()


def test_an_existing_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, checkpoint(1))
    before = (path / "tensors.safetensors").read_bytes()
    write_checkpoint(tmp_path, checkpoint(1))
    assert (path / "tensors.safetensors").read_bytes() == before


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    with pytest.raises(BadRun, match="another spec or from other data"):
        newest_checkpoint(tmp_path, "other", silent)


def test_pruning_keeps_the_best_and_the_last_two(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        write_checkpoint(tmp_path, checkpoint(step))
    prune(tmp_path, best_step=2)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "4", "5"]
