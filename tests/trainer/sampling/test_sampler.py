"""Our sampling loop against diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.tiny_sdxl import PROMPTS
from trainer.cache.cache import Cache
from trainer.data.encoding import new_encoder
from trainer.families import open_family
from trainer.runtime.signals import StopRequest
from trainer.sampling.sampler import Sampler, images_per_pass, sample_latents
from trainer.spec.buckets import Bucket
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Base

CPU = torch.device("cpu")


def sampler(base: Path, family_name: FamilyName, cache: Cache, guidance: float) -> tuple[Sampler, list[str]]:
    family = open_family(Base(name="tiny", family=family_name, source=str(base)))
    encoder = new_encoder(family, cache, "auto")
    encoder.encode(["", *PROMPTS], [], device=CPU, stop=StopRequest(), progress=lambda *_: None)
    drawing = Sampler(
        denoiser=family.load_denoiser(CPU),
        decoder=family.load_decoder(CPU),
        cache=cache,
        empty_prompt_key=encoder.prompt_key(""),
        steps=4,
        guidance=guidance,
        device=CPU,
    )
    return drawing, [encoder.prompt_key(prompt) for prompt in PROMPTS]


def nothing() -> None:
    pass


@pytest.mark.integration
@pytest.mark.parametrize("family", SAVE_BASE)
@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_an_image_is_the_pipelines(tmp_path: Path, family: FamilyName, guidance: float) -> None:
    base = SAVE_BASE[family](tmp_path / "base")
    drawing, keys = sampler(base, family, Cache(tmp_path / "cache"), guidance)
    size = Bucket(40, 24)
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.scheduler = drawing.denoiser.new_scheduler()
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(drawing.decoder.latent_shape(size), generator=torch.Generator().manual_seed(11))
    theirs = pipeline(
        PROMPTS[0],
        width=size.width,
        height=size.height,
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=noise[None],
        output_type="np",
    ).images[0]
    (ours,) = drawing.sample(keys[:1], seeds=[11], size=size, check=nothing)
    assert np.abs(np.asarray(ours) / 255 - theirs).max() <= 0.5 / 255 + 2e-3


@pytest.mark.integration
def test_an_image_depends_on_its_prompt_and_seed_and_not_on_its_neighbours(tmp_path: Path, tiny_base: Path) -> None:
    drawing, keys = sampler(tiny_base, "sdxl", Cache(tmp_path), guidance=5.0)
    size = Bucket(32, 32)
    together = drawing.sample(keys[:6], seeds=range(6), size=size, check=nothing)
    (alone,) = drawing.sample(keys[5:6], seeds=[5], size=size, check=nothing)
    assert np.abs(np.asarray(together[5], dtype=int) - np.asarray(alone, dtype=int)).max() <= 1
    other_prompt, other_seed = drawing.sample([keys[0], keys[5]], seeds=[5, 6], size=size, check=nothing)
    for other in (other_prompt, other_seed):
        assert np.abs(np.asarray(other, dtype=int) - np.asarray(alone, dtype=int)).max() > 1


@pytest.mark.unit
def test_small_images_share_a_forward_pass_and_large_ones_do_not() -> None:
    assert [images_per_pass(Bucket(side, side)) for side in (64, 512, 768, 1024, 2048)] == [4, 4, 1, 1, 1]


@dataclass
class Straight:
    """Rectified flow to a single point: the velocity is noise minus that point, along a straight path."""

    point: float

    def new_scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        return FlowMatchEulerDiscreteScheduler(shift=3.0)

    def condition(self, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return prompt

    def predict(self, noisy: Tensor, timesteps: Tensor, _prompt: Any, _sizes: Any) -> Tensor:
        return (noisy - self.point) / (timesteps / 1000).view(-1, 1, 1, 1)


@pytest.mark.unit
def test_flow_matching_follows_a_straight_path_to_its_end() -> None:
    looks: list[str] = []
    latents = sample_latents(
        Straight(0.25),  # type: ignore[arg-type]
        torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)),
        {"word": torch.zeros(2, 1)},
        {"word": torch.zeros(2, 1)},
        size=Bucket(24, 24),
        steps=5,
        guidance=3.0,
        check=lambda: looks.append("between steps"),
    )
    assert len(looks) == 5
    torch.testing.assert_close(latents, torch.full_like(latents, 0.25), rtol=0, atol=1e-5)
