"""What a job would cost by arithmetic alone: where nothing like it has run here yet. Good to a factor of a few."""

from __future__ import annotations

from dataclasses import dataclass

from api.fine_tuning.estimates.network import network_of
from api.fine_tuning.estimates.planned import Planned
from trainer.spec.family_facts import Network
from trainer.spec.method_facts import method_facts

GIB = 2**30
AROUND = 1.2  # held-out pairs, samples and exports, besides the steps
ADAPTER_BYTES = 16  # a parameter in fp32 with its gradient and Adam's two moments; as much is in a checkpoint
EXPORTS, SAMPLE_GRIDS = 2 * 4, 4 * 2**20  # bytes a parameter in two formats, and bytes of sample grids


@dataclass(frozen=True)
class Device:
    """One that is assumed: FLOPs a second that a training reaches, bytes a weight, seconds of start and of export, and
    bytes that its libraries and its allocator hold."""

    words: str
    speed: float
    width: int
    start: float
    held: float


SMALL = 100e6  # parameters; below it a network can be trained without a GPU
CPU = Device("two CPU cores (20 GFLOP/s)", 20e9, 4, 20, 0.7 * GIB)
GPU = Device("one GPU (60 TFLOP/s in bf16, a fifth of an A100's most)", 60e12, 2, 60, 1.5 * GIB)


@dataclass(frozen=True)
class FlopsEstimate:
    """``seconds`` is None while the files that decide it are not read."""

    seconds: float | None
    peak_memory_bytes: float
    disk_bytes: float
    basis: str


def estimate_from_flops(plan: Planned) -> FlopsEstimate:
    network = network_of(plan.spec.base)
    device = CPU if network.parameters < SMALL else GPU
    resolution = plan.spec.data.resolution
    area = 1.0 if resolution == "auto" else (resolution / network.side) ** 2
    adapter = network.adapter * plan.spec.adapter.rank / 16
    checkpoints = adapter * ADAPTER_BYTES * plan.checkpoints
    return FlopsEstimate(
        _seconds(plan, network, device, area),
        _peak(plan, network, device, area, adapter),
        adapter * EXPORTS + checkpoints + SAMPLE_GRIDS,
        f"estimated from {network.parameters / 1e6:,.0f} million parameters for {device.words}, to a factor of a few",
    )


def _seconds(plan: Planned, network: Network, device: Device, area: float) -> float | None:
    if plan.resolved is None:
        return None
    steps = plan.resolved.max_steps * plan.resolved.effective_batch_size
    training = steps * method_facts(plan.spec.method.type).step_cost * network.flops * area * AROUND
    caching = 2 * (plan.pairs or 0) * network.encoding * area
    return device.start + (training + caching) / device.speed


def _peak(plan: Planned, network: Network, device: Device, area: float, adapter: float) -> float:
    """The larger of training and of encoding, which come one after the other. A GPU whose batch is "auto" takes one
    pair at a time if it must; a CPU takes the whole step."""
    requested = plan.spec.method.hyperparameters.batch_size
    whole = plan.resolved.effective_batch_size if plan.resolved is not None and device is CPU else 1
    batch = whole if requested == "auto" else requested
    activation_bytes = (
        network.activations * device.width / 2 * method_facts(plan.spec.method.type).trained_images * batch * area
    )
    training = network.parameters * device.width + adapter * ADAPTER_BYTES + activation_bytes
    encoding = network.text_parameters * device.width + 4 * GIB * area * (network.side / 1024) ** 2
    return device.held + max(training, encoding)
