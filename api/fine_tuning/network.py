"""How large a base's network is: what can be said of a job's cost before any has run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path

from trainer.spec.run import Base, FamilyName


@dataclass(frozen=True)
class Network:
    """Of one image of ``side`` x ``side`` pixels, ``latent`` as the denoiser sees it: ``flops`` of its forward pass and
    ``activations``, the bytes in bf16 that its backward pass needs; ``encoding``, the FLOPs of the autoencoder.
    ``adapter``: parameters of the default LoRA of rank 16."""

    side: int
    latent: int
    parameters: float
    text_parameters: float
    flops: float
    encoding: float
    activations: float
    adapter: float


LONGEST_HEADER = 100_000_000  # bytes; the format allows no more
# Counted on the published architectures (Stable Diffusion 1.5, 2.1, XL and 3 medium) by torch's FlopCounterMode and
# saved-tensor hooks, without the attention matrices that no kernel keeps; tests/api/test_network.py counts passes again
PUBLISHED: dict[FamilyName, Network] = {
    "sd1": Network(512, 64, 0.860e9, 0.12e9, 0.80e12, 1.12e12, 0.63e9, 3.19e6),
    "sd2": Network(768, 96, 0.866e9, 0.34e9, 2.15e12, 2.61e12, 1.41e9, 3.32e6),
    "sdxl": Network(1024, 128, 2.567e9, 0.82e9, 6.76e12, 4.88e12, 5.71e9, 23.2e6),
    "sd3": Network(1024, 128, 2.028e9, 5.58e9, 8.44e12, 4.88e12, 3.76e9, 4.72e6),
}


def network_of(base: Base) -> Network:
    """The published one of its family, scaled to the files of the base where they lie on this machine."""
    return _scaled(base.family, base.source)


@cache
def _scaled(family: FamilyName, source: str) -> Network:
    published, folder = PUBLISHED[family], Path(source)
    try:
        parameters = _parameters(folder / ("transformer" if family == "sd3" else "unet"))
        side, latent = _sides(folder, family)
    except (OSError, ValueError, KeyError, TypeError):  # a hub's, or not laid out as diffusers does: the trainer tells
        return published
    size, area = parameters / published.parameters, (latent / published.latent) ** 2
    return replace(
        published,
        side=side,
        latent=latent,
        parameters=parameters,
        text_parameters=published.text_parameters * min(1.0, size),
        flops=published.flops * size * area,
        encoding=published.encoding * min(1.0, size) * (side / published.side) ** 2,
        activations=published.activations * size * area,
        adapter=published.adapter * size,
    )


def _sides(folder: Path, family: FamilyName) -> tuple[int, int]:
    """Of the images that it was made for, in pixels and as latents."""
    denoiser = json.loads((folder / ("transformer" if family == "sd3" else "unet") / "config.json").read_bytes())
    autoencoder = json.loads((folder / "vae" / "config.json").read_bytes())
    latent = int(denoiser["sample_size"])
    return latent * 2 ** (len(autoencoder["block_out_channels"]) - 1), latent


def _parameters(folder: Path) -> int:
    """Of its safetensors files; those of a variant (model.fp16.safetensors) count where there are no others."""
    found = list(folder.glob("*.safetensors"))
    plain = [path for path in found if path.name.count(".") == 1]
    counted = sum(_in_file(path) for path in plain or found)
    if counted == 0:
        raise FileNotFoundError(folder)
    return counted


def _in_file(path: Path) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(min(LONGEST_HEADER, int.from_bytes(file.read(8), "little"))))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
