"""The model card, read as the Hub reads it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.families.tiny_sd3 import save_sd3
from tests.trainer.tiny_sdxl import save_run
from trainer.export.model_card import new_card
from trainer.families import open_family
from trainer.run_directory.output import ADAPTER, EMBEDDING, SampleImages
from trainer.run_directory.run import Run, read_run
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Base, RunSpec

LOSSES = {"objective": 0.5, "chosen_loss": 0.11, "rejected_loss": 0.22, "base_chosen_loss": 0.12}
ACCURACY = {"implicit_accuracy": 0.8, "implicit_accuracy_low": 0.7, "implicit_accuracy_high": 0.9}
BASE = {"base_rejected_loss": 0.21, "base_implicit_accuracy": 0.6, "reference_corrected_accuracy": 0.75}


def evaluation(step: int, **changes: Any) -> dict[str, Any]:
    measured = {"kind": "validation", "step": step, "pairs": 20, "draws": 4, "final": False}
    return measured | LOSSES | ACCURACY | BASE | changes


NONE = SampleImages(None, "none requested")
ROWS = [
    evaluation(0, objective=0.7, implicit_accuracy=0.6, implicit_accuracy_low=0.4, implicit_accuracy_high=0.8),
    {"kind": "train", "step": 1, "loss": 0.6},
    evaluation(10),
    {"kind": "warning", "step": 10, "code": "saturated", "message": "Every pair is separated already."},
    evaluation(20, objective=0.9, pairs=5),
    evaluation(10, final=True),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("run")
    return read_run(save_run(directory / "run", directory / "base", max_steps=20, batch_size=4, beta=64.0))


def on(run: Run, base: Base, **options: Any) -> Run:
    return replace(run, spec=RunSpec.model_validate(run.spec.model_dump() | {"base": base.model_dump()} | options))


def card(
    run: Run, rows: list[dict[str, Any]] = ROWS, *, sample_images: SampleImages = NONE, has_token: bool = False
) -> str:
    drafted = new_card(run, {"torch": "2"})
    return drafted.filled(rows, best_step=10, beta=64.0, batch_size=2, sample_images=sample_images, has_token=has_token)


def front_matter(content: str) -> dict[str, Any]:
    reported: dict[str, Any] = ModelCard(content).data.to_dict()  # type: ignore[no-untyped-call]
    return reported


HUB = Base(name="sdxl", family="sdxl", source="someone/sdxl", revision="abc")


@pytest.mark.unit
def test_the_hub_finds_base_library_and_task(run: Run) -> None:
    reported = front_matter(card(on(run, HUB)))
    assert (reported["base_model"], reported["library_name"]) == ("someone/sdxl", "diffusers")
    assert {"lora", "diffusers", "text-to-image", "mapo"} <= set(reported["tags"])
    assert (reported["pipeline_tag"], reported["base_model_relation"]) == ("text-to-image", "adapter")


@pytest.mark.unit
def test_the_hub_reads_the_held_out_accuracies(run: Run) -> None:
    (index,) = front_matter(card(on(run, HUB)))["model-index"]
    (results,) = index["results"]
    assert index["name"] == run.spec.name
    assert results["dataset"]["args"] == {"pairs": 20, "draws": 4}
    assert {metric["name"]: metric["value"] for metric in results["metrics"]} == {
        "implicit accuracy": 0.8,
        "reference-corrected accuracy": 0.75,
    }


@pytest.mark.unit
def test_a_card_without_a_final_evaluation_claims_no_accuracy(run: Run) -> None:
    assert "model-index" not in front_matter(card(on(run, HUB), ROWS[:-1]))


@pytest.mark.unit
def test_sampling_prompts_become_the_hubs_examples(run: Run) -> None:
    prompted = on(run, HUB, sampling={"prompts": ["a: cat", "a dog"]})
    assert front_matter(card(prompted))["widget"] == [{"text": "a: cat"}, {"text": "a dog"}]
    assert "widget" not in front_matter(card(on(run, HUB)))


@pytest.mark.unit
def test_a_base_that_is_not_on_the_hub_is_no_base_model_there(run: Run, tmp_path: Path) -> None:
    content = card(on(run, Base(name="tiny", family="sdxl", source=str(tmp_path))))
    assert "base_model" not in front_matter(content)
    assert str(tmp_path) not in content


@pytest.mark.unit
def test_the_instance_prompt_survives_yaml(run: Run) -> None:
    prompt = 'a photo of "sks": dog # 1'
    method = {"type": "dreambooth", "dreambooth": {"hyperparameters": {"instance_prompt": prompt, "prior_weight": 0}}}
    assert front_matter(card(on(run, HUB, method=method)))["instance_prompt"] == prompt


@pytest.mark.unit
def test_the_base_stands_next_to_the_adapter_and_to_what_was_not_exported(run: Run) -> None:
    lines = card(run).splitlines()
    assert "| | base | this adapter, step 10 | not exported: step 20, 5 pairs |" in lines
    assert "| objective | 0.7000 | 0.5000 | 0.9000 |" in lines
    assert "| chosen loss | 0.1200 | 0.1100 | 0.1100 |" in lines
    assert "| rejected loss | 0.2100 | 0.2200 | 0.2200 |" in lines
    assert "| implicit accuracy | 0.60 [0.40, 0.80] | 0.80 [0.70, 0.90] | 0.80 [0.70, 0.90] |" in lines


@pytest.mark.unit
def test_a_base_measured_on_other_pairs_lends_no_interval(run: Run) -> None:
    reported = card(run, [evaluation(0, pairs=7), *ROWS[1:]])
    assert "| objective |  | 0.5000 |" in reported
    assert "| implicit accuracy | 0.60 | 0.80 [0.70, 0.90] |" in reported


@pytest.mark.unit
def test_the_last_evaluation_is_not_shown_twice(run: Run) -> None:
    assert "not kept" not in card(run, [ROWS[0], ROWS[2], ROWS[5]])


@pytest.mark.unit
def test_warnings_are_repeated(run: Run) -> None:
    assert "- Warned at step 10: Every pair is separated already." in card(run).splitlines()


@pytest.mark.unit
def test_what_it_was_made_from_is_reported(run: Run) -> None:
    reported = card(run)
    assert f"- data: 14 pairs and 2 held out, `sha256:{run.dataset_digest}`" in reported
    assert "- method: mapo, form paper, beta 64.0" in reported
    assert "20 steps of 4 pairs (2 at a time)" in reported
    assert "rank 4, alpha 8" in reported


@pytest.mark.unit
def test_samples_are_shown_where_there_are_some(run: Run) -> None:
    assert "(samples.png)" in card(run, sample_images=SampleImages(b"PNG"))
    assert "samples.png" not in card(run)
    assert "No samples: none requested." in card(run).splitlines()


@pytest.mark.unit
def test_how_to_load_it_is_said_of_the_files_that_there_are(run: Run) -> None:
    text = card(on(run, HUB))
    assert 'StableDiffusionXLPipeline.from_pretrained("someone/sdxl", revision="abc")' in text
    assert "`adapter.safetensors` is for these programs:" in text
    assert "diffusers 0.33.1 (peft 0.15.2)" in text


@pytest.mark.unit
@pytest.mark.parametrize(
    ("family", "adapter", "programs"),
    [
        ("sdxl", {}, ["ComfyUI", "Forge", "AUTOMATIC1111", "sd-scripts", "InvokeAI", "OneTrainer"]),
        ("sd1", {"type": "rslora"}, ["ComfyUI", "Forge", "AUTOMATIC1111", "sd-scripts", "InvokeAI", "OneTrainer"]),
        ("sd2", {"text_encoder": {}}, ["ComfyUI", "Forge", "AUTOMATIC1111", "sd-scripts", "InvokeAI"]),
        ("sdxl", {"type": "dora"}, ["ComfyUI", "Forge"]),
        ("sd3", {}, ["ComfyUI"]),
        ("sd3", {"type": "dora"}, ["ComfyUI"]),
        ("sd1", {"target_modules": ["attn1.to_q"]}, ["ComfyUI", "Forge", "AUTOMATIC1111", "sd-scripts"]),
        ("sd1", {"target_modules": ["to_k", "conv_in"]}, ["ComfyUI", "Forge", "AUTOMATIC1111", "InvokeAI"]),
        ("sdxl", {"target_modules": ["to_k", "linear_1"]}, ["ComfyUI", "Forge", "AUTOMATIC1111", "InvokeAI"]),
    ],
)
def test_only_programs_that_read_all_of_it_are_named(
    run: Run, family: FamilyName, adapter: dict[str, Any], programs: list[str]
) -> None:
    base = Base(name="b", family=family, source="someone/b", revision="abc")
    section = card(on(run, base, adapter=adapter)).partition("## How to load it")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\w[\w-]*) \| \S+ \|", section.partition("|---|")[2], re.M) == programs


@pytest.mark.unit
def test_a_learned_word_has_a_way_into_other_programs(run: Run) -> None:
    token = {"text": "<toy>", "initial": "cat"}
    text = card(on(run, HUB, adapter={"token": token}), has_token=True)
    assert "`embedding:learned_embeds`" in text
    assert "embeddings" not in card(on(run, HUB))


@pytest.mark.integration
@pytest.mark.parametrize("with_t5", [True, False])
def test_the_code_of_the_card_loads_a_base_without_t5(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_t5: bool
) -> None:
    local = Base(name=str(save_sd3(tmp_path / "base", with_t5=with_t5)), family="sd3", source="as named")
    made = on(run, local, adapter={"rank": 2})
    opened = open_family(local.model_copy(update={"source": local.name}), made.spec.adapter)
    denoiser = opened.load_denoiser(torch.device("cpu"))
    denoiser.add_adapter(made.spec.adapter, seed=0)
    denoiser.save_adapter(tmp_path / ADAPTER, {})
    drafted = new_card(made, {"torch": "2"})
    text = drafted.filled(
        ROWS,
        best_step=10,
        beta=64.0,
        batch_size=2,
        sample_images=NONE,
        has_token=False,
        missing_parts=opened.missing_parts,
    )
    code = text.partition("```python\n")[2].partition("```")[0].replace("as named", local.name)
    monkeypatch.chdir(tmp_path)
    loaded: dict[str, Any] = {}
    exec(code, loaded)  # noqa: S102  (our own lines)
    assert loaded["pipeline"].get_list_adapters()["transformer"]


@pytest.mark.integration
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_code_of_the_card_loads_adapter_and_word(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: FamilyName
) -> None:
    """The card's own lines are run, in the directory of the files that they name."""
    local = Base(name=str(SAVE_BASE[family](tmp_path / "base")), family=family, source="as named")
    token = {"text": "<toy>", "initial": "cat", "vectors": 2}
    made = on(run, local, adapter={"rank": 2, "token": token})
    opened = open_family(local.model_copy(update={"source": local.name}), made.spec.adapter)
    denoiser = opened.load_denoiser(torch.device("cpu"))
    denoiser.add_adapter(made.spec.adapter, seed=0)
    denoiser.save_adapter(tmp_path / ADAPTER, {})
    assert denoiser.save_token(tmp_path / EMBEDDING)
    code = card(made, has_token=True).partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    reported: dict[str, Any] = {}
    exec(code.replace("as named", local.name), reported)  # noqa: S102  (our own lines)
    pipeline = reported["pipeline"]
    assert pipeline.tokenizer.convert_tokens_to_ids("<toy>_1") == len(pipeline.tokenizer) - 1
    assert pipeline.get_list_adapters()["unet"]
