"""Adapters of every kind on the tiny SDXL: nothing at first, then learning, then a file that loads in diffusers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.program import run_program
from tests.trainer.tiny_sdxl import PROMPTS, save_run, write_spec
from trainer.families import open_family, precision
from trainer.families.family import Denoiser
from trainer.families.lora import ADAPTER_FILE
from trainer.families.precision import compute_field_errors
from trainer.families.text import token_field_errors
from trainer.runtime.errors import BadRun
from trainer.sample_request import apply_adapter
from trainer.spec.events import Failed, Metrics, Progress
from trainer.spec.family_facts import FamilyName
from trainer.spec.methods import SftMethod
from trainer.spec.run import Adapter, Base, Compute, RunSpec
from trainer.spec.sample_spec import SampleSpec
from trainer.training.trainable import Trainable, new_trainable

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
TOKEN = {"text": "<toy>", "initial": "cat", "vectors": 2}
TEXT = {"text_encoder": {"rank": 2}}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"type": "rslora", "alpha": 3},
    "dora": {"type": "dora"},
    "few modules": {"target_modules": ["to_q"]},
    "feed-forward": {"target_modules": ["ff.net.0.proj", "to_v"]},
    "text encoders": TEXT,
    "a word": {"token": TOKEN},
    "all": {"type": "rslora", **TEXT, "token": TOKEN},
}


def trainable(base: Path, adapter: Adapter, family: FamilyName = "sdxl", **compute: Any) -> Trainable:
    spec = RunSpec(
        base=Base(name="tiny", family=family, source=str(base)),
        method=SftMethod(type="sft"),
        adapter=adapter,
        compute=Compute.model_validate(compute),
    )
    opened = open_family(spec.base, spec.adapter, spec.compute)
    return new_trainable(opened, spec, CPU, learning_rate=1e-2, weight_decay=0.0)


def prompts(base: Path, adapter: Adapter, family: FamilyName = "sdxl") -> dict[str, Tensor]:
    encoders = open_family(Base(name="tiny", family=family, source=str(base)), adapter).load_encoders(CPU)
    rows = encoders.encode_prompts(["a drawing of <toy>", PROMPTS[0]])
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def prediction(denoiser: Denoiser, prompt: dict[str, Tensor]) -> Tensor:
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    sizes = torch.full((2, 6), 32.0)
    return denoiser.predict(noise, torch.tensor([300.0, 700.0]), denoiser.condition(prompt), sizes)


def train(made: Trainable, prompt: dict[str, Tensor], steps: int = 6) -> list[float]:
    """Towards predicting nothing at all."""
    losses = []
    for _ in range(steps):
        loss = prediction(made.denoiser, prompt).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in made.optimizer.param_groups:
            group["lr"] = 1e-2 * group["scale"]
        made.optimizer.step()
        made.optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_changes_nothing_at_first_then_learns_and_can_be_switched_off(tiny_base: Path, kind: str) -> None:
    adapter = Adapter.model_validate({"rank": 4, **KINDS[kind]})
    made, prompt = trainable(tiny_base, adapter), prompts(tiny_base, adapter)
    with torch.no_grad():
        first = prediction(made.denoiser, prompt)
        with made.denoiser.without_adapter():
            torch.testing.assert_close(prediction(made.denoiser, prompt), first, rtol=0, atol=1e-5)
    losses = train(made, prompt)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert (prediction(made.denoiser, prompt) - first).abs().max() > 1e-4
        with made.denoiser.without_adapter():
            torch.testing.assert_close(prediction(made.denoiser, prompt), first, rtol=0, atol=1e-5)
    assert all(parameter.dtype == torch.float32 for parameter in made.parameters.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_reloads_as_the_trained_network(tiny_base: Path, kind: str, tmp_path: Path) -> None:
    adapter = Adapter.model_validate({"rank": 4, **KINDS[kind]})
    made, prompt = trainable(tiny_base, adapter), prompts(tiny_base, adapter)
    train(made, prompt)
    made.denoiser.save_adapter(tmp_path / ADAPTER_FILE, {})
    with torch.no_grad():
        trained = prediction(made.denoiser, prompt)
        made.denoiser.reload_adapter(tmp_path / ADAPTER_FILE)
        torch.testing.assert_close(prediction(made.denoiser, prompt), trained, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind"), [("sdxl", "lora"), ("sdxl", "dora"), ("sdxl", "all"), ("sd1", "all"), ("sd2", "a word")]
)
def test_the_files_load_into_a_network_that_was_never_trained(family: FamilyName, kind: str, tmp_path: Path) -> None:
    base = SAVE_BASE[family](tmp_path / "base")
    adapter = Adapter.model_validate({"rank": 4, **KINDS[kind]})
    made, prompt = trainable(base, adapter, family), prompts(base, adapter, family)
    train(made, prompt)
    made.denoiser.save_adapter(tmp_path / ADAPTER_FILE, {})
    assert made.denoiser.save_token(tmp_path / "learned_embeds.safetensors") == (adapter.token is not None)
    opened = Base(name="tiny", family=family, source=str(base))
    fresh = open_family(opened, adapter).load_denoiser(CPU)
    requested = SampleSpec(base=opened, prompt="a cat", seed=0, adapter=adapter, weights="export")
    apply_adapter(fresh, requested, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(prediction(fresh, prompt), prediction(made.denoiser, prompt), rtol=0, atol=1e-5)


def test_text_encoders_and_words_load_in_a_fresh_pipeline(tiny_base: Path, tmp_path: Path) -> None:
    adapter = Adapter.model_validate({"rank": 4, **KINDS["all"]})
    made, prompt = trainable(tiny_base, adapter), prompts(tiny_base, adapter)
    train(made, prompt)
    made.denoiser.save_adapter(tmp_path / ADAPTER_FILE, {})
    assert made.denoiser.save_token(tmp_path / "learned_embeds.safetensors")
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_base)
    rows = load_file(tmp_path / "learned_embeds.safetensors")
    for key, tokenizer, encoder in [
        ("clip_l", pipeline.tokenizer, pipeline.text_encoder),
        ("clip_g", pipeline.tokenizer_2, pipeline.text_encoder_2),
    ]:
        pipeline.load_textual_inversion(rows[key], token="<toy>", tokenizer=tokenizer, text_encoder=encoder)
    pipeline.load_lora_weights(str(tmp_path))
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(
            ["a drawing of <toy>", PROMPTS[0]], do_classifier_free_guidance=False, device=CPU
        )
        ours = made.denoiser.condition(prompt)
    torch.testing.assert_close(ours["hidden"], hidden, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours["pooled"], pooled, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_a_single_text_encoder_is_trained_too(family: FamilyName, tmp_path: Path) -> None:
    base = SAVE_BASE[family](tmp_path / "base")
    adapter = Adapter.model_validate({"rank": 4, **KINDS["all"]})
    made, prompt = trainable(base, adapter, family), prompts(base, adapter, family)
    losses = train(made, prompt)
    assert losses[-1] < losses[0]
    made.denoiser.save_adapter(tmp_path / ADAPTER_FILE, {})
    assert made.denoiser.save_token(tmp_path / "learned_embeds.safetensors")
    assert load_file(tmp_path / "learned_embeds.safetensors")["<toy>"].shape[0] == 2
    with torch.no_grad():
        trained = prediction(made.denoiser, prompt)
        made.denoiser.reload_adapter(tmp_path / ADAPTER_FILE)
        torch.testing.assert_close(prediction(made.denoiser, prompt), trained, rtol=0, atol=1e-5)


def test_a_learned_word_leaves_every_other_row_of_the_table_as_it_was(tiny_base: Path) -> None:
    adapter = Adapter.model_validate({"rank": 4, "token": TOKEN})
    made, prompt = trainable(tiny_base, adapter), prompts(tiny_base, adapter)
    before = StableDiffusionXLPipeline.from_pretrained(tiny_base).text_encoder.get_input_embeddings().weight
    started = made.parameters["text_encoder.token"].detach().clone()
    train(made, prompt)
    text = made.denoiser.text  # type: ignore[attr-defined]
    assert torch.equal(text.encoders["text_encoder"].get_input_embeddings().weight, before)
    assert (made.parameters["text_encoder.token"] - started).abs().max() > 1e-3


def test_where_zeros_stand_for_no_prompt_they_do_so_with_encoders_that_are_trained(tiny_base: Path) -> None:
    adapter = Adapter.model_validate({"rank": 4, **TEXT})
    made, prompt = trainable(tiny_base, adapter), prompts(tiny_base, adapter)
    with torch.no_grad():
        words = made.denoiser.condition(prompt | {"empty": torch.tensor([0.0, 0.0])})
        found = made.denoiser.condition(prompt | {"empty": torch.tensor([1.0, 0.0])})
    for name in ("hidden", "pooled"):
        assert not found[name][0].any()
        assert found[name][1].any()
        assert torch.equal(found[name][1], words[name][1])


def test_learning_rates_are_the_denoisers_a_tenth_and_ten_times_that(tiny_base: Path) -> None:
    made = trainable(tiny_base, Adapter.model_validate({"rank": 4, **TEXT, "token": TOKEN}))
    assert [group["scale"] for group in made.optimizer.param_groups] == [1.0, 0.1, 10.0]
    assert made.optimizer.param_groups[2]["weight_decay"] == 0.0
    given = {"text_encoder": {"learning_rate": 5e-4}, "token": {**TOKEN, "learning_rate": 2e-3}}
    made = trainable(tiny_base, Adapter.model_validate({"rank": 4, **given}))
    assert [group["scale"] for group in made.optimizer.param_groups] == pytest.approx([1.0, 0.05, 0.2])


def test_optimizer_state_of_all_groups_comes_back(tiny_base: Path) -> None:
    adapter = Adapter.model_validate({"rank": 4, **KINDS["all"]})
    prompt = prompts(tiny_base, adapter)
    straight, resumed = trainable(tiny_base, adapter), trainable(tiny_base, adapter)
    train(straight, prompt, steps=3)
    resumed.load_weights(straight.weights())
    resumed.load_optimizer_state({name: state.clone() for name, state in straight.optimizer_state().items()})
    assert train(resumed, prompt, steps=3) == train(straight, prompt, steps=3)


def test_a_word_that_no_prompt_holds_is_a_fault() -> None:
    adapter = Adapter.model_validate({"token": TOKEN})
    (field_error,) = token_field_errors(adapter, ["a cat"])
    assert "'<toy>'" in str(field_error)
    assert token_field_errors(adapter, ["a cat", "my <toy>"]) == []


def test_modules_that_are_not_there_are_refused_with_some_that_are(tiny_base: Path) -> None:
    with pytest.raises(BadRun, match=r"adapter\.target_modules: given 'to_x'.*to_q"):
        trainable(tiny_base, Adapter(target_modules=("to_q", "to_x")))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_fp32_adapter_learns_on_a_half_precision_base(tiny_base: Path, precision: str) -> None:
    made = trainable(tiny_base, Adapter(rank=4), base_precision=precision)
    assert made.denoiser.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    losses = train(made, prompts(tiny_base, Adapter(rank=4)))
    assert losses[-1] < losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in made.parameters.values())


@pytest.mark.parametrize("compute", [{"base_precision": "int8"}, {"base_precision": "nf4"}, {"optimizer": "adamw8bit"}])
def test_what_needs_cuda_is_refused_where_there_is_none(compute: dict[str, str]) -> None:
    (field_error,) = compute_field_errors(Compute.model_validate(compute), CPU)
    ((field, value),) = compute.items()
    assert str(field_error).startswith(f"compute.{field}: given '{value}'; here a")
    assert "CUDA" in str(field_error)


@pytest.mark.parametrize(("found", "refused"), [("0.45.5", True), ("0.48.0", False), ("1.0.0.dev0", False)])
def test_an_old_bitsandbytes_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, found: str, refused: bool
) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda _: object())
    monkeypatch.setattr(precision, "version", lambda _: found)
    field_errors = compute_field_errors(Compute(base_precision="int8"), torch.device("cuda", 0))
    assert bool(field_errors) == refused
    assert all("0.48 or later" in str(one) and found in str(one) for one in field_errors)


@pytest.mark.parametrize(
    ("device", "has", "refused"), [("cuda", "gcc", False), ("cuda", "g++", True), ("cpu", "gcc", True)]
)
def test_compiling_needs_the_compiler_of_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, has: str, refused: bool
) -> None:
    monkeypatch.setattr(precision, "which", lambda name: "/usr/bin/" + name if name == has else None)
    assert bool(compute_field_errors(Compute(compile=True), torch.device(device))) == refused


def whole_run(directory: Path, base: Path, cache: Path, adapter: dict[str, Any], **options: Any) -> Any:
    save_run(directory, base)
    write_spec(
        directory,
        base,
        {"max_steps": 8, "batch_size": 4, "learning_rate": 2e-3, "preset": "style"},
        adapter={"rank": 4, **adapter},
        **options,
    )
    return run_program(directory, cache)


def test_all_of_it_trains_stops_resumes_and_exports(tiny_base: Path, tmp_path: Path) -> None:
    """Dropout, text encoders and a word: what must be the same after a stop is more than weights."""
    adapter = {**KINDS["all"], "dropout": 0.2}
    options = {"data": {"caption_templates": ["{prompt}, <toy>"]}, "checkpoints": {"every_steps": 2}}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    outcome = whole_run(straight, tiny_base, tmp_path / "cache", adapter, **options)
    assert outcome.returncode == 0, outcome.stderr
    first, *_, final = (event for event in outcome.events if isinstance(event, Metrics))
    assert final.objective < first.objective
    assert (straight / "output/learned_embeds.safetensors").exists()
    save_run(stopped, tiny_base)
    (stopped / "spec.json").write_bytes((straight / "spec.json").read_bytes())
    run_program(
        stopped, tmp_path / "cache", stop_with=signal.SIGKILL, stop_at=lambda event: isinstance(event, Progress)
    )
    resumed = run_program(stopped, tmp_path / "cache")
    assert resumed.returncode == 0, resumed.stderr
    assert (stopped / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_faults_of_the_machine_and_of_the_word_come_at_once(tiny_base: Path, tmp_path: Path) -> None:
    outcome = whole_run(
        tmp_path / "run", tiny_base, tmp_path / "cache", {"token": TOKEN}, compute={"optimizer": "adamw8bit"}
    )
    assert outcome.returncode == 64
    (failed,) = (event for event in outcome.events if isinstance(event, Failed))
    assert failed.message.count("\n") == 1
    assert "compute.optimizer" in failed.message
    assert "adapter.token.text" in failed.message
