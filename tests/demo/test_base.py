"""The bundled base model: small, safetensors, and loaded by a plain diffusers pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.pretrain import EXPORT

pytestmark = pytest.mark.unit


def test_weights_are_safetensors_of_at_most_30_mb() -> None:
    weights = [path for path in EXPORT.rglob("*") if path.suffix in {".safetensors", ".bin", ".pt", ".ckpt"}]
    assert {path.suffix for path in weights} == {".safetensors"}
    assert sum(path.stat().st_size for path in weights) <= 30_000_000


def test_card_states_the_measured_figures_and_the_attribution() -> None:
    figures = json.loads((EXPORT / "figures.json").read_text(encoding="utf-8"))
    card = (EXPORT / "README.md").read_text(encoding="utf-8")
    assert f"{figures['retrieval_top1']:.3f}" in card
    assert f"{figures['psnr_colour']:.1f} dB" in card
    assert "CC BY-SA 4.0" in card
    assert "openmoji.org" in card


def test_its_files_are_those_that_transformers_4_reads() -> None:
    """Version 5 reads tokenizer.json alone and keys without text_model. too, version 4 neither."""
    for part in ("tokenizer", "tokenizer_2"):
        model = json.loads((EXPORT / part / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        assert json.loads((EXPORT / part / "vocab.json").read_text(encoding="utf-8")) == model["vocab"]
        _, *merges = (EXPORT / part / "merges.txt").read_text(encoding="utf-8").splitlines()
        assert [merge.split() for merge in merges] == model["merges"]
    for part in ("text_encoder", "text_encoder_2"):
        content = (EXPORT / part / "model.safetensors").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        names = header.keys() - {"__metadata__", "text_projection.weight"}
        assert {name for name in names if not name.startswith("text_model.")} == set()


def test_a_plain_pipeline_loads_it_and_samples(tmp_path: Path) -> None:
    import numpy as np
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(EXPORT)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "an emoji of a tomato",
        height=64,
        width=64,
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    red, green, blue = np.asarray(image, dtype=float)[16:48, 16:48].mean(axis=(0, 1))
    assert image.size == (64, 64)
    assert red > green + 20
    assert red > blue + 20
