"""Verify that the written files are the trained adapter: load each as a user would.

Two comparisons, as neither is enough alone. The update of every layer, s B A, is compared relative to its own size: an
adapter of a few steps changes predictions by less than any tolerance for them. The prediction is compared, relative to
its size too, because it is what counts, and because text encoders have their part in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.data.batches import Batch
from trainer.export.kohya import diffusers_reads, diffusers_weights
from trainer.families.family import Denoiser
from trainer.families.lora import lora_layers, norm_ratios
from trainer.families.lora_layer import use_own_arithmetic
from trainer.run_directory.output import ADAPTER, adapter_metadata
from trainer.runtime.errors import ExportMismatch
from trainer.spec.family_facts import FamilyName

# Both relative. In half precision kernels round either way, by whole steps of a value: 2**-8 of it in bf16. So does a
# reader whose scale is in the weights: in random tiny networks that alone changed predictions by up to 2.5%. A wrong
# file shows in the updates besides.
PREDICTIONS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# A scale folded into weights is rounded with them.
UPDATES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Update:
    """One layer's: ``scale`` * ``up`` @ ``down``, shapes (out, rank) and (rank, in); DoRA's ``magnitude`` (out,)."""

    up: Tensor
    down: Tensor
    scale: float
    magnitude: Tensor | None

    def difference(self, other: Update) -> float:
        """Relative Frobenius norm of the updates' difference, or of the magnitudes' if that is larger."""
        updates = _relative(self.scale * self.up @ self.down, other.scale * other.up @ other.down)
        if self.magnitude is None or other.magnitude is None:
            return updates if self.magnitude is other.magnitude else float("inf")
        return max(updates, _relative(self.magnitude, other.magnitude))


@torch.no_grad()
def require_same_adapter(denoiser: Denoiser, folder: Path, named: str, family: FamilyName, batch: Batch) -> None:
    """Raises ExportMismatch naming the file. Leaves the network with a reloaded adapter, in the base's precision.

    ``named`` is the file in the second format. Where diffusers does not read it, it goes back to diffusers' own form
    first, by ``diffusers_weights``.
    """
    ratios = norm_ratios(denoiser.adapted)
    # As diffusers loads it: on a bf16 base, an fp32 adapter's prediction is another one by more than a wrong file's.
    cast_adapter(denoiser)
    trained, prediction = updates_of(denoiser.adapted), _prediction(denoiser, batch)
    for name in (ADAPTER, named):
        with tempfile.TemporaryDirectory() as scratch:
            denoiser.reload_adapter(_readable(folder, name, Path(scratch), family, denoiser, ratios))
        for network in denoiser.adapted.values():
            network.eval()  # new layers have their dropout on
            # PEFT's own layers round elsewhere, which is no fault of the file.
            use_own_arithmetic(lora_layers(network))
        cast_adapter(denoiser)  # on a layer of an int8 base PEFT loads it in the file's precision
        _require(name, "a layer's update", largest_difference(trained, updates_of(denoiser.adapted)), UPDATES, denoiser)
        change = _relative(prediction, _prediction(denoiser, batch))
        _require(name, "the prediction", change, PREDICTIONS, denoiser)


def cast_adapter(denoiser: Denoiser) -> None:
    """To the precision that the base computes in."""
    for network in denoiser.adapted.values():
        for module in network.modules():
            if isinstance(module, LoraLayer):
                for name in module.adapter_layer_names:
                    getattr(module, name).to(denoiser.dtype)


def updates_of(networks: Mapping[str, nn.Module]) -> dict[str, Update]:
    """By network and layer, in fp32."""
    return {
        f"{part}.{name}": _update(module)
        for part, network in networks.items()
        for name, module in network.named_modules()
        if isinstance(module, LoraLayer)
    }


def _update(layer: Any) -> Update:
    (adapter,) = layer.lora_A.keys()
    vectors = layer.lora_magnitude_vector
    return Update(
        up=layer.lora_B[adapter].weight.float().flatten(1),
        down=layer.lora_A[adapter].weight.float().flatten(1),
        scale=float(layer.scaling[adapter]),
        magnitude=vectors[adapter].weight.float().flatten() if adapter in vectors else None,
    )


def largest_difference(trained: Mapping[str, Update], reloaded: Mapping[str, Update]) -> float:
    """Of all layers; infinite if they are not the same ones."""
    if trained.keys() != reloaded.keys():
        return float("inf")
    return max((update.difference(reloaded[name]) for name, update in trained.items()), default=0.0)


def _relative(trained: Tensor, reloaded: Tensor) -> float:
    difference, size = (trained - reloaded).norm().item(), trained.norm().item()
    return difference / size if size else (float("inf") if difference else 0.0)


def _require(
    file: str, what: str, difference: float, tolerances: Mapping[torch.dtype, float], denoiser: Denoiser
) -> None:
    tolerance = tolerances[denoiser.dtype]
    if not difference <= tolerance:
        raise ExportMismatch(file, difference, tolerance, what)


def _readable(
    folder: Path, name: str, scratch: Path, family: FamilyName, denoiser: Denoiser, ratios: Mapping[str, Tensor]
) -> Path:
    tensors = load_file(folder / name)
    if name == ADAPTER or diffusers_reads(tensors):
        return folder / name
    wanted = load_file(folder / ADAPTER)
    back = diffusers_weights(tensors, wanted, ratios, family, layers_per_block(denoiser))
    whole = {key: tensor.contiguous() for key, tensor in back.items()}
    save_file(whole, scratch / ADAPTER, adapter_metadata(folder / ADAPTER))
    return scratch / ADAPTER


def layers_per_block(denoiser: Denoiser) -> int:
    """Of a UNet; 0 where there is none."""
    config: Any = denoiser.network.config
    return int(getattr(config, "layers_per_block", 0))


def _prediction(denoiser: Denoiser, batch: Batch) -> Tensor:
    sizes = batch.size_ids[: len(batch.pairs)]
    return denoiser.predict(batch.noise, batch.timesteps, denoiser.condition(batch.prompt), sizes)
