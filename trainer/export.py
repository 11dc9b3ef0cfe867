"""``output/``: the adapter in both formats, proven to load, with what explains it. Appears whole, once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.batches import Batch
from trainer.card import model_card
from trainer.checkpoint import Settled
from trainer.drawing.samples import FOLDER as SAMPLE_FOLDER
from trainer.drawing.samples import GRID
from trainer.durable import sweep, whole_directory
from trainer.errors import ExportMismatch
from trainer.families.family import Denoiser
from trainer.families.kohya import diffusers_weights, kohya_weights
from trainer.history import rows_of
from trainer.output import ADAPTER, CARD, EMBEDDING, METRICS, SAMPLES, SPEC, adapter_metadata, file_hashes
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.spec.run import RunSpec

VERSIONED = ("pairtune", "torch", "diffusers", "transformers", "peft", "safetensors")
# Largest difference of a prediction before and after reloading. In half precision, kernels may round either way.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}
# As https://github.com/Stability-AI/ModelSpec names them; ComfyUI and AUTOMATIC1111 show these.
ARCHITECTURES = {
    "sd1": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
    "sd3": "stable-diffusion-v3/lora",
}


def export(run: Run, denoiser: Denoiser, batch: Batch, *, metrics: bytes, best_step: int, settled: Settled) -> Done:
    """Write ``output/`` from the network's present adapter. Raises ExportMismatch if a file does not load as itself.

    ``batch`` is what the network is compared on before and after; afterwards its adapter is the reloaded one.
    """
    output = run.directory / "output"
    sweep(run.directory)
    spec, metadata = published(run.spec), _metadata(run, best_step)
    grid = run.directory / SAMPLE_FOLDER / GRID
    with whole_directory(output) as partial:
        denoiser.save_adapter(partial / ADAPTER, metadata)
        has_token = denoiser.save_token(partial / EMBEDDING)
        write_kohya(partial, spec, denoiser, metadata)
        (partial / METRICS).write_bytes(metrics)
        (partial / SPEC).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if grid.exists():
            shutil.copyfile(grid, partial / SAMPLES)
        card = model_card(
            spec,
            rows_of(metrics),
            dataset_digest=run.dataset_digest,
            best_step=best_step,
            settled={"beta": settled.beta, "batch_size": settled.memory.batch_size},
            versions=_versions(),
            has_samples=grid.exists(),
            has_token=has_token,
        )
        (partial / CARD).write_text(card, encoding="utf-8")
        require_same_predictions(denoiser, partial, f"{spec.name}.safetensors", spec, batch)
    return Done(best_step=best_step, files=file_hashes(output))


def write_kohya(folder: Path, spec: RunSpec, denoiser: Denoiser, metadata: Mapping[str, str]) -> None:
    tensors = load_file(folder / ADAPTER)
    configs = json.loads(adapter_metadata(folder / ADAPTER)["lora_adapter_metadata"])
    layers = getattr(denoiser.network.config, "layers_per_block", 0)
    weights = kohya_weights(tensors, configs, spec.base.family, layers)
    header = {
        **metadata,
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": spec.name,
        "modelspec.architecture": ARCHITECTURES[spec.base.family],
        "modelspec.implementation": "diffusers",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(spec.adapter.rank),
        "ss_network_alpha": str(spec.adapter.alpha or spec.adapter.rank),
        "ss_output_name": spec.name,
    }
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / f"{spec.name}.safetensors", header
    )


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
    """As it leaves the machine: directories are the operator's business, the base's name says which one it is."""
    hidden = spec.model_copy(update={"dinov2": None})
    if not Path(spec.base.source).is_dir():
        return hidden
    return hidden.model_copy(update={"base": spec.base.model_copy(update={"source": spec.base.name})})


def _versions() -> Mapping[str, str]:
    found = {}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            found[package] = "unknown"
    return found


@torch.no_grad()
def require_same_predictions(denoiser: Denoiser, folder: Path, named: str, spec: RunSpec, batch: Batch) -> None:
    """Raises ExportMismatch naming the file. Leaves the network with a reloaded adapter, in the base's precision.

    Both files go the way a user's do, through diffusers. It reads no DoRA from the second format: that file goes back
    to diffusers' own form first.
    """
    # As diffusers loads it: on a bf16 base, an fp32 adapter's prediction is another one by more than a wrong file's.
    for parameter in (p for network in denoiser.adapted.values() for p in network.parameters()):
        if parameter.requires_grad:
            parameter.data = parameter.data.to(denoiser.dtype)
    trained = _prediction(denoiser, batch)
    tolerance = TOLERANCE[denoiser.dtype]
    for name in (ADAPTER, named):
        with tempfile.TemporaryDirectory() as scratch:
            readable = folder / name
            if name == named and spec.adapter.type == "dora":
                readable = _as_diffusers(folder, named, Path(scratch), spec, denoiser)
            denoiser.reload_adapter(readable)
        for network in denoiser.adapted.values():
            network.eval()  # new layers have their dropout on
        difference = (_prediction(denoiser, batch) - trained).abs().max().item()
        if not difference <= tolerance:
            raise ExportMismatch(name, difference, tolerance)


def _as_diffusers(folder: Path, named: str, scratch: Path, spec: RunSpec, denoiser: Denoiser) -> Path:
    metadata = adapter_metadata(folder / ADAPTER)
    configs = json.loads(metadata["lora_adapter_metadata"])
    layers = getattr(denoiser.network.config, "layers_per_block", 0)
    first, second = load_file(folder / ADAPTER), load_file(folder / named)
    back = diffusers_weights(second, first, configs, spec.base.family, layers)
    save_file({name: tensor.contiguous() for name, tensor in back.items()}, scratch / ADAPTER, metadata)
    return scratch / ADAPTER


def _prediction(denoiser: Denoiser, batch: Batch) -> Tensor:
    sizes = batch.size_ids[: len(batch.pairs)]
    return denoiser.predict(batch.noise, batch.timesteps, denoiser.condition(batch.prompt), sizes)
