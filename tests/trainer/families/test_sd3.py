"""SD3 against diffusers' own pipeline and scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from tests.trainer.families.tiny_sd3 import save_sd3
from tests.trainer.families.training import fixed_inputs, losses_of_training, predicted, stacked
from tests.trainer.tiny_sdxl import PROMPTS
from trainer.families.sd3 import Sd3Denoiser, Sd3Family, open_base
from trainer.runtime.errors import BadRun
from trainer.spec.run import Adapter, Base, TextEncoderAdapter, Token

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
TIMESTEPS = (1.5, 500.0, 999.0)


def family_of(folder: Path) -> Sd3Family:
    return open_base(Base(name="tiny", family="sd3", source=str(folder)))


@pytest.fixture(scope="module", params=["with T5", "without T5"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sd3Family:
    return family_of(save_sd3(tmp_path_factory.mktemp("sd3"), with_t5=request.param == "with T5"))


@pytest.fixture
def denoiser(family: Sd3Family) -> Sd3Denoiser:
    return family.load_denoiser(CPU)


@pytest.fixture(scope="module")
def prompt(family: Sd3Family) -> dict[str, torch.Tensor]:
    return stacked(family.load_encoders(CPU).encode_prompts(PROMPTS[:3]))


def pipeline_of(family: Sd3Family) -> StableDiffusion3Pipeline:
    without = {} if family.has_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(family.folder, **without)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_sizes_follow_from_the_base(family: Sd3Family) -> None:
    assert (family.native_size, family.size_multiple, family.num_train_timesteps) == (32, 4, 1000)


def test_no_side_is_longer_than_the_network_has_positions_for(family: Sd3Family, denoiser: Sd3Denoiser) -> None:
    def predict(pixels: int, prompt: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return denoiser.predict(torch.zeros(1, 8, 16, pixels // 2), torch.ones(1), prompt, torch.zeros(1, 6))

    prompt = denoiser.condition(stacked(family.load_encoders(CPU).encode_prompts([""])))
    assert predict(family.largest_side, prompt).shape[-1] == family.largest_side // 2
    with pytest.raises(ValueError, match="pos_embed_max_size"):
        predict(family.largest_side + family.size_multiple, prompt)


def test_prompts_are_encoded_as_the_pipeline_does(family: Sd3Family, denoiser: Sd3Denoiser) -> None:
    prompts = [*PROMPTS[:2], "", "many words " * 300]
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline_of(family).encode_prompt(
            prompts, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, device=CPU
        )
    ours = denoiser.condition(stacked(family.load_encoders(CPU).encode_prompts(prompts)))
    torch.testing.assert_close(ours["hidden"], hidden)
    torch.testing.assert_close(ours["pooled"], pooled)


def test_what_t5_would_say_is_not_cached_where_there_is_none(
    family: Sd3Family, prompt: dict[str, torch.Tensor]
) -> None:
    assert ("t5" in prompt) is family.has_t5


def test_images_come_back_from_their_latents_as_the_autoencoder_decodes_them(family: Sd3Family) -> None:
    encoders, decoder = family.load_encoders(CPU), family.load_decoder(CPU)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = encoders.encode_images(pixels)
    with torch.no_grad():
        posterior = encoders.vae.encode(pixels).latent_dist
        expected = encoders.vae.decode(posterior.mean).sample
    torch.testing.assert_close(mean, (posterior.mean - 0.06) * 0.18215)
    torch.testing.assert_close(std, posterior.std * 0.18215)
    torch.testing.assert_close(decoder.decode(mean), expected)


def test_noise_is_added_as_the_scheduler_does(denoiser: Sd3Denoiser) -> None:
    scheduler = denoiser.new_scheduler()
    timesteps = scheduler.timesteps[[0, 400, 999]]
    latents, noise, _ = fixed_inputs(8, TIMESTEPS)
    torch.testing.assert_close(
        denoiser.add_noise(latents, noise, timesteps), scheduler.scale_noise(latents, timesteps, noise)
    )


def test_a_step_of_the_scheduler_along_the_target_stays_on_the_path(denoiser: Sd3Denoiser) -> None:
    scheduler = denoiser.new_scheduler()
    scheduler.set_timesteps(5)
    latents, noise, _ = fixed_inputs(8, (0.0,))
    for now, following in zip(scheduler.timesteps, [*scheduler.timesteps[1:], torch.tensor(0.0)], strict=True):
        noisy = denoiser.add_noise(latents, noise, now[None])
        stepped = scheduler.step(denoiser.target(latents, noise, now[None]), now, noisy).prev_sample
        torch.testing.assert_close(stepped, denoiser.add_noise(latents, noise, following[None]), atol=1e-5, rtol=1e-5)


def test_predictions_are_the_pipelines(
    family: Sd3Family, denoiser: Sd3Denoiser, prompt: dict[str, torch.Tensor]
) -> None:
    pipeline = pipeline_of(family)
    latents, noise, timesteps = fixed_inputs(8, TIMESTEPS)
    noisy = denoiser.add_noise(latents, noise, timesteps)
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(PROMPTS[:3], None, None, do_classifier_free_guidance=False)
        expected = pipeline.transformer(noisy, hidden, pooled, timesteps, return_dict=False)[0]
        ours = predicted(denoiser, prompt, (latents, noise, timesteps))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_sampling_follows_the_bases_schedule(denoiser: Sd3Denoiser) -> None:
    assert isinstance(denoiser.new_scheduler(), FlowMatchEulerDiscreteScheduler)
    assert denoiser.new_scheduler().shift == 3.0
    assert denoiser.new_scheduler() is not denoiser.new_scheduler()


def test_the_adapter_is_on_both_streams_attention(denoiser: Sd3Denoiser) -> None:
    parameters = denoiser.add_adapter(Adapter(rank=2), seed=0)
    adapted = {name.split(".lora_")[0] for name in parameters}
    image, text = ("to_q", "to_k", "to_v", "to_out.0"), ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    expected = {f"transformer_blocks.{block}.attn.{name}" for block in (0, 1) for name in (*image, *text)}
    assert adapted == expected - {"transformer_blocks.1.attn.to_add_out"}  # the last block gives no text on


def test_gradient_checkpointing_changes_no_gradient(denoiser: Sd3Denoiser, prompt: dict[str, torch.Tensor]) -> None:
    parameters = denoiser.add_adapter(Adapter(rank=2), seed=0)
    inputs = fixed_inputs(8, TIMESTEPS)
    gradients = []
    for wanted in (False, True):
        denoiser.checkpoint_gradients(wanted)
        assert denoiser.network.is_gradient_checkpointing is wanted
        loss = predicted(denoiser, prompt, inputs).square().mean()
        gradients.append(torch.autograd.grad(loss, [p for name, p in parameters.items() if "lora_B" in name]))
    torch.testing.assert_close(*gradients)


def test_a_trained_adapter_is_reloaded_and_sampled_with(
    family: Sd3Family, denoiser: Sd3Denoiser, prompt: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    inputs = fixed_inputs(8, TIMESTEPS)
    base = predicted(denoiser, prompt, inputs)
    parameters = denoiser.add_adapter(Adapter(rank=4, alpha=8), seed=0)
    torch.testing.assert_close(predicted(denoiser, prompt, inputs), base)
    losses = losses_of_training(denoiser, parameters, prompt, inputs)
    assert losses[-1] < 0.95 * losses[0]
    trained = predicted(denoiser, prompt, inputs).detach()
    with denoiser.without_adapter():
        torch.testing.assert_close(predicted(denoiser, prompt, inputs), base)

    path = tmp_path / "pytorch_lora_weights.safetensors"
    denoiser.save_adapter(path, {"made_by": "a test"})
    denoiser.reload_adapter(path)
    torch.testing.assert_close(predicted(denoiser, prompt, inputs), trained, atol=1e-6, rtol=1e-5)

    pipeline = pipeline_of(family)
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    fresh = replace(denoiser, network=pipeline.transformer)
    torch.testing.assert_close(predicted(fresh, prompt, inputs), trained, atol=1e-6, rtol=1e-5)
    assert pipeline(PROMPTS[0], num_inference_steps=2, height=32, width=32).images[0].size == (32, 32)


def test_a_scheduler_that_is_not_of_flow_matching_is_refused(tmp_path: Path) -> None:
    folder = save_sd3(tmp_path)
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "use_dynamic_shifting": True}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(BadRun, match="DDIMScheduler; a flow-matching scheduler") as raised:
        family_of(folder)
    assert (raised.value.code, len(raised.value.field_errors)) == ("bad_base", 2)


def test_an_adapter_learns_in_fp32_on_a_half_precision_base(
    denoiser: Sd3Denoiser, prompt: dict[str, torch.Tensor]
) -> None:
    half = replace(denoiser, network=denoiser.network.to(torch.bfloat16), dtype=torch.bfloat16)
    parameters = half.add_adapter(Adapter(rank=4, alpha=8), seed=0)
    inputs = fixed_inputs(8, TIMESTEPS)
    losses = losses_of_training(half, parameters, prompt, inputs)
    assert losses[-1] < 0.95 * losses[0]
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    assert predicted(half, prompt, inputs).dtype == torch.float32


def test_training_of_text_encoders_is_refused(family: Sd3Family) -> None:
    adapter = Adapter(text_encoder=TextEncoderAdapter(), token=Token(text="<toy>", initial="toy"))
    with pytest.raises(BadRun) as raised:
        open_base(family.base, adapter)
    assert [field_error.field for field_error in raised.value.field_errors] == ["adapter.text_encoder", "adapter.token"]
