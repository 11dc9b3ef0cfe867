"""Compiled blocks of every family, with an adapter on them: the same predictions and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer.export.test_kohya import trained
from tests.trainer.families.bases import SAVE_BASE
from trainer.cache.cache import Cache
from trainer.data.batches import Batch
from trainer.families.family import Denoiser
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Adapter

pytestmark = pytest.mark.integration


def prediction_and_gradients(denoiser: Denoiser, batch: Batch) -> list[Tensor]:
    parameters = [parameter for parameter in denoiser.network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    prediction = denoiser.predict(batch.noise, batch.timesteps, denoiser.condition(batch.prompt), batch.size_ids)
    prediction.square().mean().backward()  # type: ignore[no-untyped-call]
    return [prediction.detach(), *(parameter.grad for parameter in parameters if parameter.grad is not None)]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler's own
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # the same, of LoraLinear
@pytest.mark.parametrize("family", SAVE_BASE)
def test_a_familys_compiled_blocks_compute_the_same(
    tmp_path: Path, family: FamilyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the compiler's front end alone: generating C++ for all of them takes minutes."""
    compile_graphs = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **options: compile_graphs(*given, backend="eager", **options))
    base, cache = SAVE_BASE[family](tmp_path / "base"), Cache(tmp_path / "cache")
    denoiser, batch = trained(base, family, Adapter(rank=4), cache)
    expected = prediction_and_gradients(denoiser, batch)
    torch._dynamo.utils.counters.clear()
    denoiser.compile_blocks()
    found = prediction_and_gradients(denoiser, batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert len(found) == len(expected) > 4
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
