"""Sample images from a base or an adapter by a sample specification, without a run or a cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from trainer.cache.cache import Tensors
from trainer.families import open_family
from trainer.families.family import Decoder, Denoiser, Family
from trainer.families.precision import compute_field_errors
from trainer.run_directory.output import ADAPTER, EMBEDDING
from trainer.runtime.atomic_io import write_atomically
from trainer.runtime.device import choose_device, explain_out_of_memory, free_memory
from trainer.runtime.errors import BadRun, ImageTooLarge, OutOfMemory, RunFieldError
from trainer.runtime.event_stream import PhaseReporter, download_progress, heartbeat_check
from trainer.runtime.signals import StopRequest
from trainer.sampling.sampler import image_of, png_bytes, sample_latents, stacked
from trainer.spec.buckets import Bucket
from trainer.spec.events import Sampled
from trainer.spec.run import DEFAULT_ADAPTER, Compute
from trainer.spec.sample_spec import SampleSpec
from trainer.training.checkpoint import TENSORS

IMAGES, WEIGHTS = "images", "adapter"  # folders


@dataclass(frozen=True)
class RequestSampler:
    """Samples the images of one request, each from its seed."""

    denoiser: Denoiser
    decoder: Decoder
    prompt: Tensors
    negative: Tensors
    size: Bucket
    steps: int
    guidance: float
    device: torch.device

    def image(self, seed: int, check: Callable[[], None]) -> Image.Image:
        """One image a forward pass, so that it depends on its seed and not on the images sampled with it."""
        shape = self.decoder.latent_shape(self.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        latents = sample_latents(
            self.denoiser,
            noise[None].to(self.device),
            stacked([self.prompt], self.device),
            stacked([self.negative], self.device),
            size=self.size,
            steps=self.steps,
            guidance=self.guidance,
            check=check,
        )
        (pixels,) = self.decoder.decode(latents)
        return image_of(pixels)


def run_sample_request(spec: SampleSpec, directory: Path, phases: PhaseReporter, stop: StopRequest) -> Sampled:
    """Write ``images/0.png``, ... Raises BadRun, BaseUnavailable, ImageTooLarge, Interrupted."""
    started = time.monotonic()
    device, compute = choose_device(), Compute(base_precision=spec.base_precision)
    field_errors = compute_field_errors(compute, device)
    if field_errors:
        raise BadRun(field_errors)
    family = open_family(spec.base, spec.adapter or DEFAULT_ADAPTER, compute, download_progress(phases, stop))
    size = size_of(spec, family)
    stop.check()
    try:
        with explain_out_of_memory(device, 1):
            sampler = load_sampler(spec, family, size, directory / WEIGHTS, device)
            phases.enter("drawing")
            files = sample_images(sampler, spec, directory / IMAGES, phases, stop)
    except OutOfMemory as error:
        raise ImageTooLarge(error.exhausted_memory, size.width, size.height, error.peak_bytes) from error
    seconds = time.monotonic() - started
    return Sampled(files=files, width=size.width, height=size.height, guidance=sampler.guidance, seconds=seconds)


def size_of(spec: SampleSpec, family: Family) -> Bucket:
    """Raises BadRun for a size that the base's networks cannot have."""
    if spec.width is None or spec.height is None:
        return Bucket(family.native_size, family.native_size)
    size, multiple, largest = Bucket(spec.width, spec.height), family.size_multiple, family.largest_side
    if size.width % multiple or size.height % multiple:
        allowed = f"sides of {spec.base.name} are multiples of {multiple}"
    elif largest is not None and max(size.width, size.height) > largest:
        allowed = f"sides of {spec.base.name} are at most {largest}"
    else:
        return size
    raise BadRun([RunFieldError("size", f"{size.width}x{size.height}", allowed)], code="invalid_size")


def load_sampler(spec: SampleSpec, family: Family, size: Bucket, weights: Path, device: torch.device) -> RequestSampler:
    """Text encoders are gone from the device before the denoiser comes."""
    prompt, negative = family.load_encoders(device, images=False).encode_prompts([spec.prompt, spec.negative_prompt])
    free_memory(device)
    denoiser = family.load_denoiser(device)
    apply_adapter(denoiser, spec, weights)
    guidance = family.guidance if spec.guidance == "auto" else spec.guidance
    return RequestSampler(denoiser, family.load_decoder(device), prompt, negative, size, spec.steps, guidance, device)


def apply_adapter(denoiser: Denoiser, spec: SampleSpec, weights: Path) -> None:
    """Load the adapter at the requested strength; ``weights`` is the folder with its files."""
    if spec.adapter is None:
        return
    if spec.weights == "export":
        denoiser.reload_adapter(weights / ADAPTER)
        if spec.adapter.token is not None:
            denoiser.load_token(weights / EMBEDDING)
    else:
        load_checkpoint(denoiser, spec, weights / TENSORS)
    for network in denoiser.adapted.values():
        network.eval()  # new layers have their dropout on
        for module in network.modules():
            if isinstance(module, LoraLayer):
                module.scale_layer(spec.adapter_scale)


@torch.no_grad()
def load_checkpoint(denoiser: Denoiser, spec: SampleSpec, tensors: Path) -> None:
    """Raises BadRun for a checkpoint of another base or adapter."""
    if spec.adapter is None:
        raise AssertionError("a checkpoint is an adapter's")
    parameters = denoiser.add_adapter(spec.adapter, seed=0)
    found = adapter_of(tensors)
    if found.keys() != parameters.keys():
        raise BadRun(
            [RunFieldError("model", spec.base.name, "the base that the checkpoint was trained on")], "wrong_base"
        )
    for name, parameter in parameters.items():
        parameter.copy_(found[name])


def adapter_of(tensors: Path) -> Mapping[str, Tensor]:
    """Without the optimizer's state, which is most of a checkpoint."""
    group = "adapter/"
    with safe_open(tensors, framework="pt") as file:
        names = [name for name in list(file.keys()) if name.startswith(group)]
        return {name.removeprefix(group): file.get_tensor(name) for name in names}


def sample_images(
    sampler: RequestSampler, spec: SampleSpec, folder: Path, phases: PhaseReporter, stop: StopRequest
) -> dict[str, str]:
    """Names and SHA-256 of the images, in the order of their seeds."""
    folder.mkdir(exist_ok=True)
    files: dict[str, str] = {}
    for index, seed in enumerate(spec.seeds):
        phases.progress(index, spec.n)
        content = png_bytes(
            sampler.image(seed, heartbeat_check(phases, stop)), metadata_of(spec, seed, sampler.guidance)
        )
        write_atomically(folder / f"{index}.png", content)
        files[f"{index}.png"] = hashlib.sha256(content).hexdigest()
    return files


def metadata_of(spec: SampleSpec, seed: int, guidance: float) -> dict[str, object]:
    """What it takes to sample the image again."""
    return {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "seed": seed,
        "steps": spec.steps,
        "guidance": guidance,
        "base": spec.base.name,
        "base_revision": spec.base.revision or "",
    }
