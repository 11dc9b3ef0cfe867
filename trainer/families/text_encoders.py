"""Text encoders from disk, and the token ids they take: as diffusers' pipelines load and call them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.families.files import variant
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.run import Adapter


def load_text_encoder(
    kind: Any, folder: Path, part: str, device: torch.device, dtype: torch.dtype, *, half: bool = False
) -> Any:
    """``kind`` is transformers' class of the model, ``part`` the component's folder; ``half`` says which weights are
    read."""
    weights = variant(folder / part, half=half)
    model = kind.from_pretrained(folder, subfolder=part, use_safetensors=True, variant=weights, torch_dtype=dtype)
    return model.requires_grad_(False).eval().to(device)


def require_frozen_text_encoders(adapter: Adapter, family: str) -> None:
    """Raises BadRun if the adapter would change text encoders, where the family trains the denoiser only."""
    given = {"adapter.text_encoder": adapter.text_encoder, "adapter.token": adapter.token}
    allowed = f"null for {family}: only the denoiser is trained"
    field_errors = [
        RunFieldError(field, value.model_dump_json(), allowed) for field, value in given.items() if value is not None
    ]
    if field_errors:
        raise BadRun(field_errors)


def token_ids(tokenizer: Any, prompts: Sequence[str], length: int, device: torch.device) -> Tensor:
    """(prompts, length), padded; what does not fit is cut off, as everywhere with these models."""
    encoded = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids.to(device)
    return ids
