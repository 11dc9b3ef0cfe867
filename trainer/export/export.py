"""Write ``output/`` atomically: the adapter in both formats, verified, with its card and metrics.

The same run on the same machine and versions writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from trainer.data.batches import Batch
from trainer.export.kohya import kohya_weights
from trainer.export.manifest import result_manifest
from trainer.export.metadata import adapter_header, kohya_header, published
from trainer.export.model_card import Card
from trainer.export.verify import layers_per_block, require_same_adapter
from trainer.families.family import Denoiser
from trainer.families.lora import norm_ratios, scales
from trainer.run_directory.metrics_log import parse_rows
from trainer.run_directory.output import (
    ADAPTER,
    CARD,
    EMBEDDING,
    MANIFEST,
    METRICS,
    SAMPLES,
    SPEC,
    SampleImages,
    file_hashes,
)
from trainer.run_directory.run import Run
from trainer.runtime.atomic_io import atomic_directory, remove_partial_files
from trainer.spec.events import Done
from trainer.spec.family_facts import FamilyName
from trainer.training.checkpoint import ResolvedPlan


def export(
    run: Run,
    card: Card,
    denoiser: Denoiser,
    batch: Batch,
    *,
    metrics: bytes,
    best_step: int,
    plan: ResolvedPlan,
    native_size: int,
    missing_parts: Sequence[str],
    sample_images: SampleImages,
) -> Done:
    """Write ``output/`` from the network's present adapter. Raises ExportMismatch if a file does not load as itself.

    ``batch`` is what the network is compared on before and after; afterwards its adapter is the reloaded one.
    ``native_size`` is the base's, in pixels; ``missing_parts`` are those of its pipeline that it lacks.
    """
    output = run.directory / "output"
    remove_partial_files(run.directory)
    spec, header = published(run.spec), adapter_header(run, best_step)
    named = f"{spec.name}.safetensors"
    with atomic_directory(output) as partial:
        denoiser.save_adapter(partial / ADAPTER, header)
        has_token = denoiser.save_token(partial / EMBEDDING)
        header |= kohya_header(spec, denoiser.prediction, native_size)
        write_kohya(partial, named, spec.base.family, denoiser, header)
        for file in partial.glob("*.safetensors"):
            sort_header(file)
        require_same_adapter(denoiser, partial, named, spec.base.family, batch)
        (partial / METRICS).write_bytes(metrics)
        (partial / SPEC).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if sample_images.png is not None:
            (partial / SAMPLES).write_bytes(sample_images.png)
        readme = card.filled(
            parse_rows(metrics),
            best_step=best_step,
            beta=plan.beta,
            batch_size=plan.memory.batch_size,
            sample_images=sample_images,
            has_token=has_token,
            missing_parts=missing_parts,
        )
        (partial / CARD).write_text(readme, encoding="utf-8")
        (partial / MANIFEST).write_text(result_manifest(run, partial, best_step), encoding="utf-8")
    return Done(best_step=best_step, files=file_hashes(output))


def write_kohya(folder: Path, named: str, family: FamilyName, denoiser: Denoiser, header: Mapping[str, str]) -> None:
    """From the adapter file that lies in ``folder`` already, and the network that it was written from."""
    tensors, networks = load_file(folder / ADAPTER), denoiser.adapted
    weights = kohya_weights(tensors, scales(networks), norm_ratios(networks), family, layers_per_block(denoiser))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / named, dict(header))


def sort_header(file: Path) -> None:
    """Of a safetensors file: its metadata by name, where safetensors has them in another order each time."""
    content = file.read_bytes()
    body = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:body])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)  # the tensors begin at a multiple of 8
    file.write_bytes(len(written).to_bytes(8, "little") + written + content[body:])
