"""The headers of the adapter files: where the weights come from, in our keys and in other programs'.

Keys ``modelspec.*`` follow https://github.com/Stability-AI/ModelSpec, ``ss_*`` what kohya's sd-scripts writes. A key is
left out where nothing true can be said: sd-scripts has no module for DoRA, and an SD3 file is not of its format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.run_directory.run import Run
from trainer.spec.family_facts import FamilyName, Kohya, family_facts
from trainer.spec.run import Adapter, RunSpec

if TYPE_CHECKING:
    from trainer.families.family import Prediction

VERSIONED = ("pairtune", "torch", "diffusers", "transformers", "peft", "safetensors")
STABILITY = "https://github.com/Stability-AI/generative-models"  # whose module names the SDXL file uses


def adapter_header(run: Run, best_step: int) -> dict[str, str]:
    spec = published(run.spec)
    return {
        "pairtune.run": run.digest,
        "pairtune.best_step": str(best_step),
        "pairtune.dataset": f"sha256:{run.dataset_digest}",
        "pairtune.base": spec.base.name,
        "pairtune.base_revision": spec.base.revision or "",
        "pairtune.seed": str(spec.seed),
        "pairtune.spec": spec.model_dump_json(),
        "pairtune.versions": json.dumps(versions()),
    }


def kohya_header(spec: RunSpec, prediction: Prediction, native_size: int) -> dict[str, str]:
    """``native_size`` is the base's, in pixels."""
    kohya = family_facts(spec.base.family).kohya
    size = native_size if spec.data.resolution == "auto" else spec.data.resolution
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": spec.name,
        "modelspec.architecture": f"{_architecture(spec.base.family, prediction)}/lora",
        "modelspec.implementation": STABILITY if kohya and kohya.original else "diffusers",
        "modelspec.resolution": f"{size}x{size}",
        **_prediction_type(prediction),
        "ss_output_name": spec.name,
        **(_kohya_only(spec.adapter, kohya) if kohya else {}),
    }


def _architecture(family: FamilyName, prediction: Prediction) -> str:
    match family:
        case "sd1":
            return "stable-diffusion-v1"
        case "sd2":
            return "stable-diffusion-v2-768-v" if prediction == "v_prediction" else "stable-diffusion-v2-512"
        case "sdxl":
            return "stable-diffusion-xl-v1-base"
        case "sd3":
            return "stable-diffusion-3"


def _prediction_type(prediction: Prediction) -> dict[str, str]:
    if prediction == "flow":
        return {}
    return {"modelspec.prediction_type": "v" if prediction == "v_prediction" else "epsilon"}


def _kohya_only(adapter: Adapter, kohya: Kohya) -> dict[str, str]:
    """AUTOMATIC1111 offers an adapter only for models of its version, and takes one that names none for SD 1.x."""
    version = {"ss_base_model_version": kohya.version, "ss_v2": str(kohya.is_v2)}
    module = {} if adapter.type == "dora" else {"ss_network_module": "networks.lora"}
    scale = {"ss_network_dim": str(adapter.rank), "ss_network_alpha": str(_plain_alpha(adapter))}
    return version | module | scale


def _plain_alpha(adapter: Adapter) -> float:
    """The alpha that scales as this adapter does once it is divided by the rank, as everyone else divides it."""
    alpha = float(adapter.rank if adapter.alpha is None else adapter.alpha)
    return alpha * math.sqrt(adapter.rank) if adapter.type == "rslora" else alpha


def published(spec: RunSpec) -> RunSpec:
    """As it leaves the machine: directories are the operator's business, the base's name says which one it is."""
    hidden = spec.model_copy(update={"dinov2": None})
    changed: dict[str, str | None] = {} if spec.base.config is None else {"config": None}
    if Path(spec.base.source).exists():
        changed["source"] = spec.base.name
    return hidden.model_copy(update={"base": spec.base.model_copy(update=changed)}) if changed else hidden


def versions() -> Mapping[str, str]:
    found = {}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            found[package] = "unknown"
    return found
