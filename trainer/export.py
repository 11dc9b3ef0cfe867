"""``output/``: the adapter in both formats, proven to load, with what explains it. Appears whole, once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file

from trainer.batches import Batch
from trainer.card import model_card
from trainer.checkpoint import Settled
from trainer.drawing.samples import FOLDER as SAMPLE_FOLDER
from trainer.drawing.samples import GRID
from trainer.durable import sweep, whole_directory
from trainer.families.family import Denoiser
from trainer.families.kohya import kohya_weights
from trainer.header import adapter_header, kohya_header, published, versions
from trainer.history import rows_of
from trainer.output import ADAPTER, CARD, EMBEDDING, METRICS, SAMPLES, SPEC, adapter_metadata, file_hashes
from trainer.proof import layers_per_block, require_same_adapter
from trainer.rundir import Run
from trainer.spec.events import Done
from trainer.spec.run import FamilyName


def export(
    run: Run,
    denoiser: Denoiser,
    batch: Batch,
    *,
    metrics: bytes,
    best_step: int,
    settled: Settled,
    native_size: int,
) -> Done:
    """Write ``output/`` from the network's present adapter. Raises ExportMismatch if a file does not load as itself.

    ``batch`` is what the network is compared on before and after; afterwards its adapter is the reloaded one.
    ``native_size`` is the base's, in pixels.
    """
    output = run.directory / "output"
    sweep(run.directory)
    spec, header = published(run.spec), adapter_header(run, best_step)
    named = f"{spec.name}.safetensors"
    grid = run.directory / SAMPLE_FOLDER / GRID
    with whole_directory(output) as partial:
        denoiser.save_adapter(partial / ADAPTER, header)
        has_token = denoiser.save_token(partial / EMBEDDING)
        header |= kohya_header(spec, denoiser.prediction, native_size)
        write_kohya(partial, named, spec.base.family, denoiser, header)
        require_same_adapter(denoiser, partial, named, spec.base.family, batch)
        (partial / METRICS).write_bytes(metrics)
        (partial / SPEC).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if grid.exists():
            shutil.copyfile(grid, partial / SAMPLES)
        card = model_card(
            run,
            rows_of(metrics),
            best_step=best_step,
            beta=settled.beta,
            batch_size=settled.memory.batch_size,
            versions=versions(),
            has_samples=grid.exists(),
            has_token=has_token,
        )
        (partial / CARD).write_text(card, encoding="utf-8")
    return Done(best_step=best_step, files=file_hashes(output))


def write_kohya(folder: Path, named: str, family: FamilyName, denoiser: Denoiser, header: Mapping[str, str]) -> None:
    """From the adapter file that lies in ``folder`` already."""
    tensors = load_file(folder / ADAPTER)
    configs = json.loads(adapter_metadata(folder / ADAPTER)["lora_adapter_metadata"])
    weights = kohya_weights(tensors, configs, family, layers_per_block(denoiser))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / named, dict(header))
