"""The forward process and its two targets, by their algebra."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.families.diffusion import Diffusion, new_diffusion, num_train_timesteps, read_scheduler, timestep_at
from trainer.runtime.errors import BadRun

pytestmark = pytest.mark.unit

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
CPU = torch.device("cpu")


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    latents, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    return latents, noise, torch.tensor([0.0, 500.0, 999.0])


def process(prediction: str) -> Diffusion:
    return new_diffusion({**SCHEDULER, "prediction_type": prediction}, CPU)


def test_the_first_timestep_is_nearly_the_image_and_the_last_nearly_noise() -> None:
    latents, noise, timesteps = inputs()
    noisy = process("epsilon").add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noisy[0], latents[0], rtol=0, atol=0.1)
    torch.testing.assert_close(noisy[2], noise[2], rtol=0, atol=0.25)
    assert noisy.dtype == torch.float32


def test_signal_and_noise_have_the_schedules_variance() -> None:
    diffusion = process("epsilon")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(diffusion.alphas_cumprod.double(), expected, rtol=1e-4, atol=1e-6)
    one, none = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    signal, deviation = (diffusion.add_noise(*of, torch.tensor([500.0])).item() for of in ((one, none), (none, one)))
    assert signal**2 == pytest.approx(expected[500].item(), rel=1e-4)
    assert signal**2 + deviation**2 == pytest.approx(1.0)


def test_a_network_of_noise_prediction_is_to_predict_the_noise() -> None:
    latents, noise, timesteps = inputs()
    assert torch.equal(process("epsilon").target(latents, noise, timesteps), noise)
    assert torch.equal(new_diffusion(SCHEDULER, CPU).target(latents, noise, timesteps), noise)


def test_image_and_noise_come_back_from_what_is_noisy_and_its_velocity() -> None:
    """arXiv 2202.00512, appendix D: x = signal z - deviation v, noise = deviation z + signal v."""
    latents, noise, timesteps = inputs()
    diffusion = process("v_prediction")
    noisy, velocity = diffusion.add_noise(latents, noise, timesteps), diffusion.target(latents, noise, timesteps)
    alphas = diffusion.alphas_cumprod[timesteps.long()].view(-1, 1, 1, 1)
    signal, deviation = alphas.sqrt(), (1 - alphas).sqrt()
    torch.testing.assert_close(signal * noisy - deviation * velocity, latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(deviation * noisy + signal * velocity, noise, atol=1e-5, rtol=1e-4)


def test_timesteps_are_whole_from_the_first_to_the_last_each_with_the_same_share() -> None:
    assert (timestep_at(0.0, 1000), timestep_at(1 - 1e-12, 1000)) == (0.0, 999.0)
    counted = torch.bincount(torch.tensor([int(timestep_at(step / 4000, 1000)) for step in range(4000)]))
    assert counted.tolist() == [4] * 1000
    assert timestep_at(0.7, 10) == 7.0


def scheduler_file(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))
    return folder


PLAYGROUND = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
}


@pytest.mark.parametrize(
    "content",
    [
        PLAYGROUND,
        {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"},  # CosXL
        {**SCHEDULER, "_class_name": "EulerDiscreteScheduler", "sigma_data": 0.5},
        {**SCHEDULER, "_class_name": "FlowMatchEulerDiscreteScheduler"},
    ],
    ids=["Playground", "CosXL", "a sigma of the data", "flow matching"],
)
def test_a_base_of_another_process_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(BadRun, match=r"scheduler/ _class_name: given .*EDM and flow matching") as raised:
        read_scheduler(scheduler_file(tmp_path, content))
    assert raised.value.code == "bad_base"


def test_a_scheduler_that_leaves_its_timesteps_out_has_diffusers_number_of_them(tmp_path: Path) -> None:
    content = {key: value for key, value in SCHEDULER.items() if key != "num_train_timesteps"}
    scheduler = read_scheduler(scheduler_file(tmp_path, content))
    assert num_train_timesteps(scheduler) == len(new_diffusion(scheduler, CPU).alphas_cumprod) == 1000
