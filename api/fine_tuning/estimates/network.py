"""How large a base's network is: what can be said of a job's cost before any has run."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path

from trainer.spec.family_facts import FamilyName, Network, family_facts
from trainer.spec.run import Base

LONGEST_HEADER = 100_000_000  # bytes; the format allows no more


def network_of(base: Base) -> Network:
    """The published one of its family, scaled to the files of the base where they lie on this machine."""
    return _scaled(base.family, base.source)


@cache
def _scaled(family: FamilyName, source: str) -> Network:
    facts, folder = family_facts(family), Path(source)
    published = facts.network
    try:
        parameters = _parameters(folder / facts.denoiser)
        side, latent = _sides(folder, facts.denoiser)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # a hub's, or not laid out as diffusers does: the trainer reports it
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


def _sides(folder: Path, network: str) -> tuple[int, int]:
    """Of the images that it was made for, in pixels and as latents."""
    denoiser = json.loads((folder / network / "config.json").read_bytes())
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
