"""The SDXL family against diffusers' own pipeline and schedulers, and the caching phase on it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline

from tests.trainer.tiny_sdxl import PROMPTS, save_run
from trainer.cache.cache import Cache
from trainer.data.batches import Batches, prefetch
from trainer.data.encoding import new_encoder
from trainer.data.pairs import DataRequirements, EncodedDataset, dataset_files_of, encode_dataset
from trainer.evaluation.held_out import fixed_batches
from trainer.export.export import write_kohya
from trainer.export.model_card import new_card
from trainer.export.verify import PREDICTIONS, UPDATES, require_same_adapter
from trainer.families.family import Family
from trainer.families.sdxl import SdxlDenoiser, SdxlEncoders, SdxlFamily, open_base
from trainer.recipe import train
from trainer.run_directory.output import ADAPTER
from trainer.run_directory.run import Run, read_run
from trainer.runtime.distributed import SINGLE_PROCESS
from trainer.runtime.errors import BadRun, Interrupted, NonFiniteLoss
from trainer.runtime.event_stream import PhaseReporter
from trainer.runtime.signals import StopRequest
from trainer.spec.events import CheckpointWritten, Event, Metrics
from trainer.spec.run import Adapter, Base

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")


def family_of(folder: Path) -> SdxlFamily:
    return open_base(Base(name="tiny", family="sdxl", source=str(folder)))


@pytest.fixture(scope="module")
def family(tiny_base: Path) -> SdxlFamily:
    return family_of(tiny_base)


@pytest.fixture(scope="module")
def denoiser(family: SdxlFamily) -> SdxlDenoiser:
    return family.load_denoiser(CPU)


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(save_run(tmp_path_factory.mktemp("run") / "run", tiny_base, max_steps=4, batch_size=4))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def encoded(run: Run, family: Family, cache: Cache, *, stop: bool = False) -> EncodedDataset:
    return encode_dataset(
        new_encoder(family, cache, "auto"),
        dataset_files_of(run),
        run,
        DataRequirements(rejected=True),
        device=CPU,
        stop=StopRequest(requested=stop),
        progress=lambda *_: None,
    )


def test_sizes_follow_from_the_base(family: SdxlFamily) -> None:
    assert (family.native_size, family.size_multiple, family.num_train_timesteps) == (32, 4, 1000)


def test_prompts_are_encoded_as_the_pipeline_does(family: SdxlFamily, tiny_base: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_base)
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(PROMPTS[:2], do_classifier_free_guidance=False, device=CPU)
    ours = family.load_encoders(CPU).encode_prompts(PROMPTS[:2])
    torch.testing.assert_close(torch.stack([one["hidden"] for one in ours]), hidden)
    torch.testing.assert_close(torch.stack([one["pooled"] for one in ours]), pooled)


def test_the_empty_prompt_is_zeros_where_the_pipelines_are(family: SdxlFamily) -> None:
    encoders = family.load_encoders(CPU)
    assert encoders.encode_prompts([""])[0]["hidden"].abs().sum() > 0
    zeros, words = replace(encoders, zeros_for_empty=True).encode_prompts(["", "a"])
    assert zeros["hidden"].abs().sum() == zeros["pooled"].abs().sum() == 0
    assert words["hidden"].abs().sum() > 0


def test_moments_are_scaled_as_the_denoiser_sees_them(family: SdxlFamily) -> None:
    encoders = family.load_encoders(CPU)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = encoders.encode_images(pixels)
    with torch.no_grad():
        posterior = encoders.vae.encode(pixels).latent_dist
    torch.testing.assert_close(mean, posterior.mean * 0.18215)
    torch.testing.assert_close(std, posterior.std * 0.18215)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_are_the_schedulers(
    denoiser: SdxlDenoiser, family: SdxlFamily, prediction: Literal["epsilon", "v_prediction"]
) -> None:
    ours = replace(denoiser, process=replace(denoiser.process, prediction=prediction))
    scheduler = DDPMScheduler.from_config(dict(family.scheduler))
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    timesteps = torch.tensor([0, 500, 999])
    torch.testing.assert_close(
        ours.add_noise(latents, noise, timesteps), scheduler.add_noise(latents, noise, timesteps)
    )
    expected = noise if prediction == "epsilon" else scheduler.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(ours.target(latents, noise, timesteps), expected)


def test_pickled_weights_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    weights = base / "vae/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadRun, match=r"diffusion_pytorch_model\.bin; only safetensors") as raised:
        family_of(base)
    assert raised.value.code == "unsafe_format"


def test_a_base_that_is_nowhere_is_refused_without_asking_the_network() -> None:
    with pytest.raises(BadRun, match=r"base\.source: given '/nowhere'"):
        open_base(Base(name="none", family="sdxl", source="/nowhere"))


class Closed:
    """A family whose encoders must not be needed."""

    def __init__(self, family: SdxlFamily) -> None:
        self.native_size, self.size_multiple = family.native_size, family.size_multiple
        self.num_train_timesteps, self.fingerprint = family.num_train_timesteps, family.fingerprint
        self.guidance, self.timestep_at = family.guidance, family.timestep_at
        self.largest_side, self.missing_parts = family.largest_side, family.missing_parts
        self.load_denoiser, self.load_decoder = family.load_denoiser, family.load_decoder

    def load_encoders(self, *_: object, **__: object) -> SdxlEncoders:
        raise AssertionError("everything is cached")


def test_a_second_run_finds_everything_cached(run: Run, family: SdxlFamily, cache: Cache) -> None:
    first = encoded(run, family, cache)
    assert encoded(run, Closed(family), cache) == first


def test_an_entry_computed_again_is_the_same_to_the_last_bit(
    run: Run, family: SdxlFamily, cache: Cache, tmp_path: Path
) -> None:
    key = encoded(run, family, cache).training[3].images[0].key
    again = Cache(tmp_path)
    shutil.copytree(cache.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / key[:2] / f"{key}.safetensors").unlink()
    encoded(run, family, again)
    assert torch.equal(again.read(key)["mean"], cache.read(key)["mean"])


def test_a_stop_request_ends_the_caching_phase(run: Run, family: SdxlFamily, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        encoded(run, family, Cache(tmp_path), stop=True)


def test_every_image_that_cannot_be_decoded_is_named(tiny_base: Path, family: SdxlFamily, tmp_path: Path) -> None:
    directory = save_run(tmp_path / "run", tiny_base)
    for name in ("0-chosen.png", "3-rejected.png"):
        image = directory / "data" / name
        image.write_bytes(image.read_bytes()[:1000])  # the header still reads well
    run = read_run(directory)
    with pytest.raises(BadRun) as raised:
        encoded(run, family, Cache(tmp_path / "cache"))
    assert sorted(field_error.given for field_error in raised.value.field_errors) == [
        "'0-chosen.png'",
        "'3-rejected.png'",
    ]


def test_a_pair_gets_the_same_batch_row_in_any_company(run: Run, family: SdxlFamily, cache: Cache) -> None:
    training = encoded(run, family, cache).training
    squares = [pair for pair in training if pair.bucket == training[0].bucket][:3]
    batches = Batches(
        cache,
        seed=1,
        sides=2,
        timestep_at=family.timestep_at,
        prompt_dropout=0.5,
        empty_prompt_key=new_encoder(family, cache, "auto").prompt_key(""),
    )
    together, alone = batches.batch(squares, step=9), batches.batch(squares[1:2], step=9)
    assert torch.equal(together.noise[1], alone.noise[0])
    assert together.timesteps[1] == alone.timesteps[0]
    assert torch.equal(together.latents[1], alone.latents[0])
    assert torch.equal(together.latents[3 + 1], alone.latents[1])
    assert torch.equal(together.prompt["hidden"][1], alone.prompt["hidden"][0])


def test_a_pair_without_finite_loss_stops_the_run_and_is_named(tiny_base: Path, tmp_path: Path) -> None:
    run = read_run(save_run(tmp_path / "run", tiny_base, max_steps=4, batch_size=4))
    family, cache = family_of(tiny_base), Cache(tmp_path / "cache")
    poisoned = encoded(run, family, cache).training[2]
    cache.write(poisoned.images[0].key, {"mean": torch.full((4, 16, 16), torch.nan), "std": torch.zeros(4, 16, 16)})
    events: list[Event] = []
    with pytest.raises(NonFiniteLoss) as raised:
        train(run, new_card(run, {"torch": "2"}), cache, PhaseReporter(events.append), StopRequest(), SINGLE_PROCESS)
    assert raised.value.pairs == (poisoned.id,)
    assert any(isinstance(event, Metrics) and event.step == 0 for event in events)
    assert all(event.step < raised.value.step for event in events if isinstance(event, CheckpointWritten))
    assert not (run.directory / "output").exists()


def test_an_adapter_on_a_half_precision_base_predicts_the_same_once_reloaded(
    family: SdxlFamily, run: Run, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diffusers loads an adapter in its base's precision, which alone may change a prediction by several bf16 steps."""
    full = family.load_denoiser(CPU)
    half = replace(full, network=full.network.to(torch.bfloat16), dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in half.add_adapter(Adapter(rank=4, alpha=8), seed=0).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    (batch,) = fixed_batches(encoded(run, family, cache).held_out[:1], cache, [500])
    half.save_adapter(tmp_path / ADAPTER, {})
    write_kohya(tmp_path, "adapter.safetensors", "sdxl", half, {})
    monkeypatch.setitem(PREDICTIONS, torch.bfloat16, 0.0)
    monkeypatch.setitem(UPDATES, torch.bfloat16, 0.0)
    require_same_adapter(half, tmp_path, "adapter.safetensors", "sdxl", batch)


def test_one_ahead_yields_everything_in_order_and_passes_errors_on() -> None:
    assert list(prefetch(lambda number: number * 2, range(5), CPU)) == [0, 2, 4, 6, 8]
    assert list(prefetch(lambda number: number, range(0), CPU)) == []
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda number: 1 / number, [1, 0], CPU))
