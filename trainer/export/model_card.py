"""The model card: what the adapter is, how it was trained, its held-out metrics, and how to load it.

A card is drafted before torch is imported, so ``huggingface_hub`` is imported only where the card is filled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.evaluation.diagnostics import LoggedRow
from trainer.export.metadata import published
from trainer.export.readers import DIFFUSERS_TRIED, readers_of
from trainer.run_directory.output import ADAPTER, EMBEDDING, METRICS, SAMPLES, SPEC, SampleImages
from trainer.run_directory.run import Run
from trainer.spec.family_facts import FamilyFacts, family_facts
from trainer.spec.method_facts import method_facts
from trainer.spec.methods import DreamboothMethod
from trainer.spec.run import RunSpec, Token

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

KINDS = {"lora": "A LoRA", "rslora": "A rank-stabilised LoRA", "dora": "A DoRA"}
TASK = "text-to-image"  # the Hub's pipeline tag


@dataclass(frozen=True)
class Card:
    """A run's model card without its metrics: drafted before training, so that the export meets no missing fact.

    ``metadata`` are arguments of ``huggingface_hub.ModelCardData``. ``loss_hyperparameters`` are the values of the
    method's facts' by name, "auto" among them.
    """

    run: Run
    metadata: Mapping[str, Any]
    opening: Sequence[str]
    family: FamilyFacts
    method: str
    loss_hyperparameters: Mapping[str, Any]
    versions: Mapping[str, str]

    def filled(
        self,
        rows: Sequence[LoggedRow],
        *,
        best_step: int,
        beta: float | None,
        batch_size: int,
        sample_images: SampleImages,
        has_token: bool,
        missing_parts: Sequence[str] = (),
    ) -> str:
        """Markdown with the Hub's front matter.

        ``rows`` are those of metrics.jsonl; ``beta`` and ``batch_size`` are what "auto" became. ``missing_parts`` are
        those of the family's pipeline that the base lacks.
        """
        spec = published(self.run.spec)
        return "\n".join(
            [
                *front_matter(self.metadata, eval_results(rows, self.run.dataset_digest)),
                *self.opening,
                "",
                shown(sample_images),
                "",
                "## How it measured",
                "",
                *measured(rows, best_step),
                "",
                "## How to load it",
                "",
                *loading(spec, self.family, spec.adapter.token if has_token else None, missing_parts),
                "",
                "## What it was made from",
                "",
                *training(self.run, self.method, {**self.loss_hyperparameters, "beta": beta}, batch_size),
                f"- seed {self.run.spec.seed}; {SPEC} holds everything else that was requested, {METRICS} every step",
                f"- {', '.join(f'{package} {number}' for package, number in self.versions.items())}",
                "",
            ]
        )


def new_card(run: Run, versions: Mapping[str, str]) -> Card:
    """Raises LookupError, which names what is missing, where the facts of the method or the family lack a row."""
    spec = published(run.spec)
    method, family = method_facts(spec.method.type), family_facts(spec.base.family)
    base = f"`{spec.base.name}`" + (f" at revision `{spec.base.revision}`" if spec.base.revision else "")
    return Card(
        run=run,
        metadata=metadata_of(spec),
        opening=[
            f"# {spec.name}",
            "",
            f"{KINDS[spec.adapter.type]} of rank {spec.adapter.rank} for {base}, by {method.summary}.",
        ],
        family=family,
        method=spec.method.type,
        loss_hyperparameters={name: getattr(spec.method.hyperparameters, name) for name in method.loss_hyperparameters},
        versions=versions,
    )


def shown(sample_images: SampleImages) -> str:
    if sample_images.png is None:
        return f"No samples: {sample_images.missing_reason}."
    return f"![samples, the base's in the first row]({SAMPLES})"


def metadata_of(spec: RunSpec) -> dict[str, Any]:
    """What the Hub's front matter says of a published spec. The base's license is not known here, so none is named."""
    dreambooth = spec.method.hyperparameters if isinstance(spec.method, DreamboothMethod) else None
    prompts = spec.sampling.prompts
    return {
        "base_model": "/".join(spec.base.source.split("/")[:2]) if on_the_hub(spec) else None,
        "base_model_relation": "adapter" if on_the_hub(spec) else None,
        "instance_prompt": dreambooth.instance_prompt if dreambooth else None,
        "library_name": "diffusers",
        "model_name": spec.name,
        "pipeline_tag": TASK,
        "tags": [TASK, "lora", "diffusers", "diffusers-training", "pairtune", spec.method.type],
        "widget": [{"text": prompt} for prompt in prompts] or None,
    }


def eval_results(rows: Sequence[LoggedRow], dataset_digest: str) -> list[EvalResult]:
    """The exported adapter's accuracies on the held-out pairs; none where it was not measured."""
    from huggingface_hub import EvalResult

    finals = [row for row in rows if row["kind"] == "validation" and row["final"]]
    return [
        EvalResult(
            task_type=TASK,
            dataset_type="preference-pairs",
            dataset_name="held-out preference pairs",
            dataset_revision=f"sha256:{dataset_digest}",
            dataset_args={"pairs": row["pairs"], "draws": row["draws"]},
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(row[measure], 4),
        )
        for row in finals[-1:]
        for measure, name in (
            ("implicit_accuracy", "implicit accuracy"),
            ("reference_corrected_accuracy", "reference-corrected accuracy"),
        )
    ]


def front_matter(metadata: Mapping[str, Any], results: Sequence[EvalResult]) -> list[str]:
    """YAML between two lines of dashes, as the Hub reads it."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(**metadata, eval_results=list(results) or None)
    return ["---", *data.to_yaml().splitlines(), "---", ""]


def on_the_hub(spec: RunSpec) -> bool:
    """A published spec names a local base by its name, a hub's by its id."""
    return "/" in spec.base.source


def measured(rows: Sequence[LoggedRow], best_step: int) -> list[str]:
    """Metrics of the base, the exported adapter and, if it is another, the last one; then the warnings."""
    validations = [row for row in rows if row["kind"] == "validation"]
    finals = [row for row in validations if row["final"]]
    if not finals:
        return ["It was not measured."]
    exported, last = finals[-1], [row for row in validations if not row["final"]][-1]
    columns = [of_base(validations[0], exported), of_adapter(exported)]
    names = ["base", f"this adapter, step {best_step}"]
    if last["step"] != best_step:
        columns, names = (
            [*columns, of_adapter(last)],
            [*names, f"not exported: step {last['step']}, {last['pairs']} pairs"],
        )
    warned = [row for row in rows if row["kind"] == "warning"]
    return [
        f"On {exported['pairs']} held-out pairs, {exported['draws']} fixed timesteps and noises each; in brackets, 95%",
        "bootstrap intervals. Of the steps that were checked, this adapter's had the lowest held-out objective.",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {measure} | {' | '.join(column[measure] for column in columns)} |" for measure in columns[1]),
        "",
        "Implicit accuracy is the share of pairs whose chosen image the network denoises better than the rejected one.",
        "Without a reference it also measures which image is simpler, hence the base's next to it; reference-corrected",
        "accuracy counts the pairs whose difference grew against the base's. Both rise when rejected images are merely",
        "denoised worse, and neither says how samples look: check them by eye.",
        *([""] if warned else []),
        *(f"- Warned at step {row['step']}: {row['message']}" for row in warned),
    ]


def of_base(first: LoggedRow, exported: LoggedRow) -> dict[str, str]:
    """``first`` is the evaluation of step 0, whose intervals are the base's if it measured the same pairs."""
    same_pairs = first["step"] == 0 and first["pairs"] == exported["pairs"]
    return {
        "objective": f"{first['objective']:.4f}" if same_pairs else "",
        "chosen loss": f"{exported['base_chosen_loss']:.4f}",
        "rejected loss": f"{exported['base_rejected_loss']:.4f}",
        "implicit accuracy": f"{exported['base_implicit_accuracy']:.2f}"
        + (interval(first, "implicit_accuracy") if same_pairs else ""),
        "reference-corrected accuracy": "",
    }


def of_adapter(row: LoggedRow) -> dict[str, str]:
    return {
        "objective": f"{row['objective']:.4f}",
        "chosen loss": f"{row['chosen_loss']:.4f}",
        "rejected loss": f"{row['rejected_loss']:.4f}",
        "implicit accuracy": f"{row['implicit_accuracy']:.2f}" + interval(row, "implicit_accuracy"),
        "reference-corrected accuracy": f"{row['reference_corrected_accuracy']:.2f}"
        + interval(row, "reference_corrected_accuracy"),
    }


def interval(row: LoggedRow, measure: str) -> str:
    """Empty where none was measured."""
    if f"{measure}_low" not in row:
        return ""
    return f" [{row[f'{measure}_low']:.2f}, {row[f'{measure}_high']:.2f}]"


def training(run: Run, method: str, shaping: Mapping[str, Any], batch_size: int) -> list[str]:
    """``shaping``: the hyperparameters of the method's loss, by name, as they were trained with."""
    trained, adapter = run.hyperparameters, run.spec.adapter
    values = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shaping.items() if value is not None)
    alpha = adapter.rank if adapter.alpha is None else adapter.alpha
    return [
        f"- data: {len(run.training)} pairs and {len(run.validation)} held out, `sha256:{run.dataset_digest}`",
        f"- method: {method}" + (f", {values}" if values else ""),
        f"- at most {trained.max_steps} steps of {trained.effective_batch_size} pairs ({batch_size} at a time),"
        f" {run.spec.compute.optimizer}, learning rate {trained.learning_rate:g} ({trained.lr_scheduler},"
        f" {trained.warmup_steps} warm-up steps), weight decay {trained.weight_decay:g}, gradients clipped at"
        f" {trained.max_grad_norm:g}, prompt dropout {trained.prompt_dropout:g}",
        f"- adapter: rank {adapter.rank}, alpha {alpha:g}, dropout {adapter.dropout:g}"
        + (f"; text encoders too, rank {adapter.text_encoder.rank or adapter.rank}" if adapter.text_encoder else ""),
    ]


def loading(spec: RunSpec, family: FamilyFacts, token: Token | None, missing_parts: Sequence[str]) -> list[str]:
    """``token`` where a word was learned."""
    pipeline = family.pipeline
    given = [json.dumps(spec.base.source)]
    given += [f"revision={json.dumps(spec.base.revision)}"] if spec.base.revision else []
    given += [f"{part}=None" for part in missing_parts]
    where = "" if on_the_hub(spec) else "  # where you have it"
    return [
        "```python",
        f"from diffusers import {pipeline}",
        "",
        f"pipeline = {pipeline}.from_pretrained({', '.join(given)}){where}",
        f'pipeline.load_lora_weights(".", weight_name="{ADAPTER}")',
        *(word(family, token) if token else []),
        "```",
        "",
        f"`{ADAPTER}` was tried with diffusers {', '.join(DIFFUSERS_TRIED)}.",
        "Its scale is in the weights: alpha is the rank.",
        "",
        *elsewhere(spec, f"{spec.name}.safetensors"),
        *(word_elsewhere() if token else []),
    ]


def word(family: FamilyFacts, token: Token) -> list[str]:
    """How the pipeline learns it; where the file has a table an encoder, it needs to know which is whose."""
    tables = [encoder for encoder in family.text_encoders if encoder.word is not None]
    if not tables:
        return [f'pipeline.load_textual_inversion(".", weight_name="{EMBEDDING}")  # the word {token.text}']
    return [
        "",
        "from safetensors.torch import load_file",
        "",
        f'rows = load_file("{EMBEDDING}")  # of the word {token.text}',
        *(
            f'pipeline.load_textual_inversion(rows["{encoder.word}"], token="{token.text}", '
            f"text_encoder=pipeline.{encoder.component}, tokenizer=pipeline.{encoder.tokenizer})"
            for encoder in tables
        ),
    ]


def elsewhere(spec: RunSpec, named: str) -> list[str]:
    """Programs that read the second file whole, each with the version that was tried."""
    rows = [f"| {reader.title} | {reader.version} | {reader.how} |" for reader in readers_of(spec).values()]
    return [
        f"`{named}` is for these programs:",
        "",
        "| program | version tried | how |",
        "|---|---|---|",
        *rows,
        "",
        *warnings(spec, named),
    ]


def warnings(spec: RunSpec, named: str) -> list[str]:
    """What a user would try that goes wrong without a message."""
    if spec.base.family == "sd3":
        return [
            "Other programs have no loader for SD3's LoRAs, or drop layers; InvokeAI takes it for a LoRA of Qwen-Image."
        ]
    if spec.adapter.type == "dora":
        return [
            f"`{named}` holds DoRA's magnitudes as ComfyUI and Forge compute with them. AUTOMATIC1111, InvokeAI,",
            "sd-scripts, OneTrainer and diffusers make another network of it, without a message.",
        ]
    return ["A program that is not in the table may drop layers of this adapter without a message."]


def word_elsewhere() -> list[str]:
    return [
        "",
        f"The word in other programs: ComfyUI has `{EMBEDDING}` in `models/embeddings`, and the prompt says",
        f"`embedding:{EMBEDDING.partition('.')[0]}`; AUTOMATIC1111 has it in `embeddings`, and the prompt says "
        f"`{EMBEDDING.partition('.')[0]}`.",
    ]
