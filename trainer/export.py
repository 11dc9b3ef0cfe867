"""``output/``: the adapter, proven to load, with the metrics and the spec that explain it. Appears whole, once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from trainer.batches import Batch
from trainer.durable import sweep, whole_directory
from trainer.errors import ExportMismatch
from trainer.families.family import Denoiser
from trainer.output import ADAPTER, METRICS, SPEC, file_hashes
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.spec.run import RunSpec

VERSIONED = ("pairtune", "torch", "diffusers", "transformers", "peft", "safetensors")
# Largest difference of a prediction before and after reloading. In half precision, kernels may round either way.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def export(run: Run, denoiser: Denoiser, batch: Batch, *, metrics: bytes, best_step: int) -> Done:
    """Write ``output/`` from the network's present adapter. Raises ExportMismatch if it does not load as itself.

    ``batch`` is what the network is compared on before and after; afterwards its adapter is the reloaded one.
    """
    output = run.directory / "output"
    sweep(run.directory)
    with whole_directory(output) as partial:
        denoiser.save_adapter(partial / ADAPTER, _metadata(run, best_step))
        (partial / METRICS).write_bytes(metrics)
        (partial / SPEC).write_text(published(run.spec).model_dump_json(indent=2) + "\n", encoding="utf-8")
        require_same_predictions(denoiser, partial / ADAPTER, batch, TOLERANCE[denoiser.dtype])
    return Done(best_step=best_step, files=file_hashes(output))


def _metadata(run: Run, best_step: int) -> dict[str, str]:
    spec = run.spec
    return {
        "pairtune.run": run.digest,
        "pairtune.best_step": str(best_step),
        "pairtune.dataset": f"sha256:{run.dataset_digest}",
        "pairtune.base": spec.base.name,
        "pairtune.base_revision": spec.base.revision or "",
        "pairtune.seed": str(spec.seed),
        "pairtune.spec": published(spec).model_dump_json(),
        "pairtune.versions": json.dumps(_versions()),
    }


def published(spec: RunSpec) -> RunSpec:
    """As it leaves the machine: the base's directory is the operator's business, its name says which one it is."""
    if not Path(spec.base.source).is_dir():
        return spec
    return spec.model_copy(update={"base": spec.base.model_copy(update={"source": spec.base.name})})


def _versions() -> Mapping[str, str]:
    found = {}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            found[package] = "unknown"
    return found


@torch.no_grad()
def require_same_predictions(denoiser: Denoiser, adapter: Path, batch: Batch, tolerance: float) -> None:
    """Raises ExportMismatch. Leaves the network with the reloaded adapter, in the base's precision."""
    # As diffusers loads it: on a bf16 base, an fp32 adapter's prediction is another one by more than a wrong file's.
    for parameter in denoiser.network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(denoiser.dtype)
    trained = _prediction(denoiser, batch)
    denoiser.reload_adapter(adapter)
    difference = (_prediction(denoiser, batch) - trained).abs().max().item()
    if not difference <= tolerance:
        raise ExportMismatch(difference, tolerance)


def _prediction(denoiser: Denoiser, batch: Batch) -> Tensor:
    sizes = batch.size_ids[: len(batch.pairs)]
    return denoiser.predict(batch.noise, batch.timesteps, denoiser.condition(batch.prompt), sizes)
