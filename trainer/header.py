"""What the headers of the adapter files say: where the weights come from, in our words and in those others look for.

Keys ``modelspec.*`` follow https://github.com/Stability-AI/ModelSpec, ``ss_*`` what kohya's sd-scripts writes. A key is
left out where nothing true can be said: sd-scripts has no module for DoRA, and an SD3 file is not of its format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.families.family import Prediction
from trainer.rundir import Run
from trainer.spec.run import Adapter, FamilyName, RunSpec

VERSIONED = ("pairtune", "torch", "diffusers", "transformers", "peft", "safetensors")
# AUTOMATIC1111 offers an adapter only for models of this version, and takes one that names none for SD 1.x.
BASE_VERSIONS: dict[FamilyName, str] = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
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
    size = native_size if spec.data.resolution == "auto" else spec.data.resolution
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": spec.name,
        "modelspec.architecture": f"{_architecture(spec.base.family, prediction)}/lora",
        "modelspec.implementation": STABILITY if spec.base.family == "sdxl" else "diffusers",
        "modelspec.resolution": f"{size}x{size}",
        **_prediction_type(prediction),
        "ss_output_name": spec.name,
        **_base_version(spec.base.family),
        **_network(spec.adapter, spec.base.family),
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


def _base_version(family: FamilyName) -> dict[str, str]:
    if family not in BASE_VERSIONS:
        return {}
    return {"ss_base_model_version": BASE_VERSIONS[family], "ss_v2": str(family == "sd2")}


def _network(adapter: Adapter, family: FamilyName) -> dict[str, str]:
    if family not in BASE_VERSIONS:
        return {}
    module = {} if adapter.type == "dora" else {"ss_network_module": "networks.lora"}
    return module | {"ss_network_dim": str(adapter.rank), "ss_network_alpha": str(_plain_alpha(adapter))}


def _plain_alpha(adapter: Adapter) -> float:
    """The alpha that scales as this adapter does once it is divided by the rank, as everyone else divides it."""
    alpha = float(adapter.rank if adapter.alpha is None else adapter.alpha)
    return alpha * math.sqrt(adapter.rank) if adapter.type == "rslora" else alpha


def published(spec: RunSpec) -> RunSpec:
    """As it leaves the machine: directories are the operator's business, the base's name says which one it is."""
    hidden = spec.model_copy(update={"dinov2": None})
    if not Path(spec.base.source).is_dir():
        return hidden
    return hidden.model_copy(update={"base": spec.base.model_copy(update={"source": spec.base.name})})


def versions() -> Mapping[str, str]:
    found = {}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            found[package] = "unknown"
    return found
