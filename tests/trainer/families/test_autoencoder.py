"""Latents as the denoiser sees them: every convention of scale and shift that an autoencoder may have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from trainer.families.autoencoder import AutoencoderDecoder, encode_images

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
MEANS, DEVIATIONS = [0.5, -0.25], [2.0, 4.0]


def autoencoder(**conventions: Any) -> Any:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        latent_channels=2,
        norm_num_groups=2,
        mid_block_add_attention=False,
        scaling_factor=0.2,
        **conventions,
    ).eval()


def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("conventions", "shift", "scale"),
    [
        ({}, 0.0, 0.2),
        ({"shift_factor": 0.1}, 0.1, 0.2),
        ({"latents_mean": MEANS, "latents_std": DEVIATIONS}, MEANS, [0.1, 0.05]),
    ],
)
def test_means_are_shifted_and_scaled_and_deviations_scaled_alone(conventions: Any, shift: Any, scale: Any) -> None:
    vae = autoencoder(**conventions)
    mean, deviation = encode_images(vae, pixels(), CPU)
    with torch.no_grad():
        posterior = vae.encode(pixels()).latent_dist
    shifts, scales = (torch.tensor(one).view(1, -1, 1, 1) for one in (shift, scale))
    torch.testing.assert_close(mean, (posterior.mean - shifts) * scales)
    torch.testing.assert_close(deviation, posterior.std * scales)
    assert deviation.min() > 0
    decoded = AutoencoderDecoder(vae, CPU).decode(mean)
    with torch.no_grad():
        torch.testing.assert_close(decoded, vae.decode(posterior.mean).sample, rtol=1e-4, atol=1e-5)
