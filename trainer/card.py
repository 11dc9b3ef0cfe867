"""The model card: what an adapter is, what it was made from, how it measured, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.output import ADAPTER, EMBEDDING
from trainer.spec.run import RunSpec

METHODS = {
    "mapo": "margin-aware preference optimization ([MaPO](https://arxiv.org/abs/2406.06424))",
    "dpo": "[Diffusion-DPO](https://arxiv.org/abs/2311.12908), with the base as reference",
    "sft": "supervised fine-tuning on the chosen images",
    "dco": "direct consistency optimization ([DCO](https://arxiv.org/abs/2402.12004)) on the chosen images",
    "dreambooth": "[DreamBooth](https://arxiv.org/abs/2208.12242) on the chosen images",
}
KINDS = {"lora": "A LoRA", "rslora": "A rank-stabilised LoRA", "dora": "A DoRA"}
PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
}


def model_card(
    spec: RunSpec,
    rows: Sequence[Mapping[str, Any]],
    *,
    dataset_digest: str,
    best_step: int,
    settled: Mapping[str, object],
    versions: Mapping[str, str],
    has_samples: bool,
    has_token: bool,
) -> str:
    """Markdown with the Hub's front matter. ``rows`` are those of metrics.jsonl, ``settled`` what "auto" became."""
    base = f"`{spec.base.name}`" + (f" at revision `{spec.base.revision}`" if spec.base.revision else "")
    return "\n".join(
        [
            *front_matter(spec),
            f"# {spec.name}",
            "",
            f"{KINDS[spec.adapter.type]} of rank {spec.adapter.rank} for {base}, by {METHODS[spec.method.type]}.",
            "",
            *(["![samples, the base's in the first row](samples.png)", ""] if has_samples else []),
            "## How it measured",
            *measured(rows, best_step),
            "",
            "## How to load it",
            *loading(spec, has_token),
            "",
            "## What it was made from",
            f"- data: `sha256:{dataset_digest}`",
            f"- method: `{spec.method.model_dump_json(exclude_defaults=True)}`",
            f"- settled on the way: `{json.dumps(settled)}`",
            f"- seed {spec.seed}; spec.json holds everything else, metrics.jsonl every step",
            f"- {', '.join(f'{package} {number}' for package, number in versions.items())}",
            "",
        ]
    )


def front_matter(spec: RunSpec) -> list[str]:
    tags = ["text-to-image", "lora", "diffusers", "diffusers-training", "pairtune", spec.method.type]
    return [
        "---",
        *(["base_model: " + json.dumps(spec.base.source)] if "/" in spec.base.source else []),
        "library_name: diffusers",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
    ]


def measured(rows: Sequence[Mapping[str, Any]], best_step: int) -> list[str]:
    """The base beside the exported adapter, on the held-out pairs."""
    validations = [row for row in rows if row["kind"] == "validation"]
    finals = [row for row in validations if row.get("final")]
    if not finals:
        return ["It was not measured."]
    last = finals[-1]
    interval = f"95%: {last['implicit_accuracy_low']:.2f} to {last['implicit_accuracy_high']:.2f}"
    warned = [row for row in rows if row["kind"] == "warning"]
    return [
        f"On {last['pairs']} held-out pairs, {last['draws']} fixed timesteps each. The adapter is that of step",
        f"{best_step}, which has the best held-out objective.",
        "",
        "| | base | this adapter |",
        "|---|---|---|",
        f"| chosen loss | {last['base_chosen_loss']:.4f} | {last['chosen_loss']:.4f} |",
        f"| rejected loss | {last['base_rejected_loss']:.4f} | {last['rejected_loss']:.4f} |",
        f"| implicit accuracy | {last['base_implicit_accuracy']:.2f} | {last['implicit_accuracy']:.2f} ({interval}) |",
        f"| reference-corrected accuracy | | {last['reference_corrected_accuracy']:.2f} |",
        "",
        "Implicit accuracy is the share of pairs whose chosen image the network denoises better than the rejected one.",
        "It also depends on how simple the images are, hence the base's beside it; it does not say how samples look.",
        *([""] if warned else []),
        *(f"- Warned at step {row['step']}: {row['message']}" for row in warned),
    ]


def loading(spec: RunSpec, has_token: bool) -> list[str]:
    token = spec.adapter.token
    embedding = (
        [f'pipeline.load_textual_inversion("{EMBEDDING}")  # the word {token.text}']
        if has_token and token is not None
        else []
    )
    return [
        "```python",
        f"from diffusers import {PIPELINES[spec.base.family]}",
        "",
        f"pipeline = {PIPELINES[spec.base.family]}.from_pretrained({json.dumps(spec.base.source)})",
        f'pipeline.load_lora_weights(".", weight_name="{ADAPTER}")',
        *embedding,
        "```",
        f"ComfyUI, AUTOMATIC1111, sd-scripts: `{spec.name}.safetensors` into the folder for LoRAs, strength 1.",
    ]
