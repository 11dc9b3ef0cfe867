"""Recognise a base model's family from the configuration of its networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.families.files import read_json
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.family_facts import FAMILIES, FamilyName, family_facts

TRANSFORMERS: Mapping[str, str] = {
    facts.denoiser_class: name for name, facts in FAMILIES.items() if facts.denoiser == "transformer"
}


def require_family(folder: Path, family: FamilyName) -> None:
    """Raises BadRun if the folder holds a model of another family, or one that takes more than noisy latents."""
    found = _family_of(folder)
    if found != family:
        allowed = f"the files in base.source are of {found}: register the base with the family that it is of"
        raise BadRun([RunFieldError("base.family", repr(family), allowed)], code="wrong_family")
    _require_text_to_image(folder, family_facts(family).denoiser)


def _family_of(folder: Path) -> str:
    parts = read_json(folder / "model_index.json")
    if "transformer" in parts:
        kind = str(parts["transformer"][1])
        return TRANSFORMERS.get(kind, f"another kind ({kind})")
    unet = read_json(folder / "unet" / "config.json")
    embedding = unet.get("addition_embed_type")
    if embedding == "text_time":
        return "sdxl"
    if embedding is not None:
        return f"another kind (a UNet with {embedding} conditioning)"
    # The one thing that all of SD 2.x changed in SD 1.x's UNet, whatever widths its derivatives have.
    return "sd2" if unet.get("use_linear_projection", False) else "sd1"


def _require_text_to_image(folder: Path, network: str) -> None:
    """Inpainting, depth, editing and upscaling models take further channels besides the noisy latents."""
    taken = read_json(folder / network / "config.json").get("in_channels", 4)
    latent = read_json(folder / "vae" / "config.json").get("latent_channels", 4)
    if taken != latent:
        allowed = f"only text-to-image models are trained, which take the {latent} channels of their autoencoder"
        raise BadRun([RunFieldError(f"base.source {network}/ in_channels", str(taken), allowed)], code="bad_base")
