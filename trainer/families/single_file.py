"""Base models in one safetensors file, as ComfyUI's users have them: converted once to diffusers' layout.

The converted base is stored beside the hub's downloads, under a name that follows from the file and its configuration.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from trainer.families.files import WANTED
from trainer.runtime.atomic_io import explain_disk_full
from trainer.runtime.errors import BadRun, BaseUnavailable, RunFieldError
from trainer.runtime.locks import file_lock
from trainer.spec.family_facts import FamilyName

FOLDER = "pairtune-converted"
HALF_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
T5_KEY = "text_encoders.t5xxl.transformer."


def converted(file: Path, config: Path | None, family: FamilyName) -> Path:
    """The folder of the base in diffusers' layout.

    ``config`` is a folder in that layout with the configurations and tokenizers; without it, diffusers recognises the
    model and asks the hub for them. Raises BadRun for a file that cannot be converted, DiskFull.
    """
    from huggingface_hub.constants import HF_HOME

    folder = Path(HF_HOME) / FOLDER
    target = folder / _digest(file, config)
    with explain_disk_full(target):
        folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "lock"):
        if not target.is_dir():
            partial = folder / f".{target.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            pipeline = _load(file, config, family)
            with explain_disk_full(target):
                pipeline.save_pretrained(partial, safe_serialization=True)
                partial.rename(target)
    return target


def _load(file: Path, config: Path | None, family: FamilyName) -> Any:
    from diffusers.loaders.single_file_utils import SingleFileComponentError
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    options: dict[str, Any] = {} if config is None else {"config": str(config), "local_files_only": True}
    dtype, keys = _contents(file)
    if family == "sd3" and not any(key.startswith(T5_KEY) for key in keys):
        options |= {"text_encoder_3": None, "tokenizer_3": None}
    if family in ("sd1", "sd2"):
        options |= {"safety_checker": None, "feature_extractor": None}
    # Of what conversion raises for a file with other tensors than its configuration says, these are the kinds.
    try:
        pipeline = _pipeline_of(family).from_single_file(str(file), torch_dtype=dtype, **options)
        _require_all_weights(pipeline)
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:  # for the configuration
        raise BaseUnavailable(file.name, f"base.config can name a local configuration. {error}") from error
    except (SingleFileComponentError, ValueError, KeyError, NotImplementedError, OSError) as error:
        allowed = (
            f"a file with the whole {family} model (denoiser, autoencoder, text encoders) in the original layout, "
            f"and base.config of the same model: {type(error).__name__}: {error}"
        )
        raise BadRun([RunFieldError("base.source", repr(file.name), allowed)], code="bad_base") from error
    return pipeline


def _require_all_weights(pipeline: Any) -> None:
    """Raises ValueError for weights that the file lacks, which diffusers leaves without a value."""
    for part, module in pipeline.components.items():
        parameters = module.named_parameters() if isinstance(module, nn.Module) else ()
        missing = [f"{part}.{name}" for name, parameter in parameters if parameter.is_meta]
        if missing:
            raise ValueError(f"the file has no {missing[0]}, one of {len(missing)} that it lacks")


def _pipeline_of(family: FamilyName) -> Any:
    import diffusers

    names = {"sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline"}
    return getattr(diffusers, names.get(family, "StableDiffusionPipeline"))


def _contents(file: Path) -> tuple[torch.dtype, list[str]]:
    """The precision of most of its tensors, half precision for fewer bits, and their names. Raises BadRun."""
    try:
        with safe_open(file, framework="pt") as tensors:
            keys = list(tensors.keys())
            kinds = Counter(tensors.get_slice(key).get_dtype() for key in keys)
    except SafetensorError as error:
        allowed = f"a whole safetensors file: {error}"
        raise BadRun([RunFieldError("base.source", repr(file.name), allowed)], code="bad_base") from error
    most_common = max(kinds, key=lambda kind: kinds[kind], default="F32")
    return (torch.float16 if most_common.startswith("F8") else HALF_DTYPES.get(most_common, torch.float32)), keys


def _digest(file: Path, config: Path | None) -> str:
    """Of the file by path, size and time: to hash 7 GB at every start would take longer than to load them."""
    status = file.stat()
    digest = hashlib.sha256(repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode())
    small = sorted(path for pattern in WANTED[:-1] for path in (config.rglob(pattern) if config else ()))
    for path in small:
        digest.update(f"{path.relative_to(config or path)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:32]
