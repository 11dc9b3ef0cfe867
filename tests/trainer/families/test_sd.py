"""SD 1.x and 2.x against diffusers' own pipeline and schedulers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.families.training import fixed_inputs, losses_of_training, predicted, stacked
from tests.trainer.tiny_sdxl import PROMPTS
from trainer.families.sd import SdDenoiser, SdFamily, open_base
from trainer.spec.run import Adapter, Base

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
TIMESTEPS = (0.0, 500.0, 999.0)


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SdFamily:
    folder = SAVE_BASE[request.param](tmp_path_factory.mktemp(request.param))
    return open_base(Base(name="tiny", family=request.param, source=str(folder)))


@pytest.fixture
def denoiser(family: SdFamily) -> SdDenoiser:
    return family.load_denoiser(CPU)


@pytest.fixture(scope="module")
def prompt(family: SdFamily) -> dict[str, torch.Tensor]:
    return stacked(family.load_encoders(CPU).encode_prompts(PROMPTS[:3]))


def pipeline_of(family: SdFamily) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(family.folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_sizes_and_timesteps_follow_from_the_base(family: SdFamily) -> None:
    assert (family.native_size, family.size_multiple, family.num_train_timesteps) == (32, 4, 1000)
    assert family.largest_side is None
    assert [family.timestep_at(share) for share in (0.0, 0.0015, 1 - 1e-9)] == [0.0, 1.0, 999.0]


def test_the_prediction_is_the_bases(family: SdFamily, denoiser: SdDenoiser) -> None:
    assert denoiser.prediction == {"sd1": "epsilon", "sd2": "v_prediction"}[family.base.family]


def test_prompts_are_encoded_as_the_pipeline_does(family: SdFamily) -> None:
    prompts = [*PROMPTS[:2], "", "many words " * 60]
    with torch.no_grad():
        hidden, _ = pipeline_of(family).encode_prompt(prompts, CPU, 1, do_classifier_free_guidance=False)
    ours = family.load_encoders(CPU).encode_prompts(prompts)
    torch.testing.assert_close(torch.stack([one["hidden"] for one in ours]), hidden)


def test_images_come_back_from_their_latents_as_the_autoencoder_decodes_them(family: SdFamily) -> None:
    encoders, decoder = family.load_encoders(CPU), family.load_decoder(CPU)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = encoders.encode_images(pixels)
    with torch.no_grad():
        posterior = encoders.vae.encode(pixels).latent_dist
        expected = encoders.vae.decode(posterior.mean).sample
    torch.testing.assert_close(mean, posterior.mean * 0.18215)
    torch.testing.assert_close(std, posterior.std * 0.18215)
    torch.testing.assert_close(decoder.decode(mean), expected)


def test_noise_and_target_are_the_schedulers(family: SdFamily, denoiser: SdDenoiser) -> None:
    scheduler = DDPMScheduler.from_config(dict(family.scheduler))
    latents, noise, timesteps = fixed_inputs(4, TIMESTEPS)
    counted = timesteps.long()
    torch.testing.assert_close(
        denoiser.add_noise(latents, noise, timesteps), scheduler.add_noise(latents, noise, counted)
    )
    velocity = scheduler.get_velocity(latents, noise, counted)
    expected = {"epsilon": noise, "v_prediction": velocity}[denoiser.prediction]
    torch.testing.assert_close(denoiser.target(latents, noise, timesteps), expected)


def test_predictions_are_the_pipelines(family: SdFamily, denoiser: SdDenoiser, prompt: dict[str, torch.Tensor]) -> None:
    latents, noise, timesteps = fixed_inputs(4, TIMESTEPS)
    noisy = denoiser.add_noise(latents, noise, timesteps)
    with torch.no_grad():
        unet = pipeline_of(family).unet
        expected = torch.cat(
            [unet(noisy[i : i + 1], t.long(), prompt["hidden"][i : i + 1]).sample for i, t in enumerate(timesteps)]
        )
        ours = predicted(denoiser, prompt, (latents, noise, timesteps))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_sampling_follows_the_bases_schedule(family: SdFamily, denoiser: SdDenoiser) -> None:
    scheduler = denoiser.new_scheduler()
    assert scheduler.config.prediction_type == denoiser.prediction
    torch.testing.assert_close(scheduler.alphas_cumprod, denoiser.process.alphas_cumprod)
    assert denoiser.new_scheduler() is not scheduler


def test_gradient_checkpointing_changes_no_gradient(denoiser: SdDenoiser, prompt: dict[str, torch.Tensor]) -> None:
    parameters = denoiser.add_adapter(Adapter(rank=2), seed=0)
    inputs = fixed_inputs(4, TIMESTEPS)
    gradients = []
    for wanted in (False, True):
        denoiser.checkpoint_gradients(wanted)
        assert denoiser.network.is_gradient_checkpointing is wanted
        loss = predicted(denoiser, prompt, inputs).square().mean()
        gradients.append(torch.autograd.grad(loss, [p for name, p in parameters.items() if "lora_B" in name]))
    torch.testing.assert_close(*gradients)


def test_a_trained_adapter_is_reloaded_and_sampled_with(
    family: SdFamily, denoiser: SdDenoiser, prompt: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    inputs = fixed_inputs(4, TIMESTEPS)
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
    fresh = replace(denoiser, network=pipeline.unet)
    torch.testing.assert_close(predicted(fresh, prompt, inputs), trained, atol=1e-6, rtol=1e-5)
    assert pipeline(PROMPTS[0], num_inference_steps=2, height=32, width=32).images[0].size == (32, 32)


def test_an_adapter_learns_in_fp32_on_a_half_precision_base(
    denoiser: SdDenoiser, prompt: dict[str, torch.Tensor]
) -> None:
    half = replace(denoiser, network=denoiser.network.to(torch.bfloat16), dtype=torch.bfloat16)
    parameters = half.add_adapter(Adapter(rank=4, alpha=8), seed=0)
    inputs = fixed_inputs(4, TIMESTEPS)
    losses = losses_of_training(half, parameters, prompt, inputs)
    assert losses[-1] < 0.95 * losses[0]
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    assert predicted(half, prompt, inputs).dtype == torch.float32
