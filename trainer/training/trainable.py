"""What training changes: the adapter's parameters and the optimizer's state, and their copies in checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.data.noise import keyed_seed
from trainer.families.family import Denoiser, Family
from trainer.spec.run import Adapter, RunSpec
from trainer.spec.strict import Auto


@dataclass(frozen=True)
class Trainable:
    """``parameters`` are the trainable ones, text encoders' and learned words included, by name."""

    denoiser: Denoiser
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    dropouts: tuple[nn.Dropout, ...] = ()

    @contextmanager
    def training(self, seed: int, step: int, rank: int = 0) -> Iterator[None]:
        """Dropout is on inside, the same at this step wherever the run was resumed; outside everything is fixed."""
        if not self.dropouts:
            yield
            return
        torch.manual_seed(keyed_seed("dropout", seed, step, rank))
        for dropout in self.dropouts:
            dropout.train()
        try:
            yield
        finally:
            for dropout in self.dropouts:
                dropout.eval()

    def weights(self) -> dict[str, Tensor]:
        """Copies on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        """Keyed "<parameter>.<state>": step, exp_avg and exp_avg_sq, or what the 8-bit optimizer has."""
        return {
            f"{name}.{kind}": torch.as_tensor(tensor)
            for name, parameter in self.parameters.items()
            for kind, tensor in self.optimizer.state[parameter].items()
        }

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def load_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        ordered = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        positions = {id(parameter): position for position, parameter in enumerate(ordered)}
        states: dict[int, dict[str, Any]] = {position: {} for position in positions.values()}
        fused = isinstance(self.optimizer, torch.optim.AdamW)
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition(".")
            # torch's AdamW counts steps in a tensor, bitsandbytes' in a number.
            states[positions[id(self.parameters[name])]][kind] = tensor if fused or kind != "step" else int(tensor)
        self.optimizer.load_state_dict({"state": states, "param_groups": self.optimizer.state_dict()["param_groups"]})


def groups(parameters: Mapping[str, nn.Parameter], adapter: Adapter, learning_rate: float) -> list[dict[str, Any]]:
    """The optimizer's, each with ``scale``, its rate in parts of the denoiser's: the step's rate is multiplied by it.

    Learned words are not pulled towards 0: their length carries meaning.
    """

    def part(rate: float | Auto, usual: float) -> float:
        return usual if isinstance(rate, str) else rate / learning_rate

    text, token = adapter.text_encoder, adapter.token
    words = [p for name, p in parameters.items() if name.endswith(".token")]
    encoders = [p for name, p in parameters.items() if name.startswith("text_encoder") and not name.endswith(".token")]
    network = [p for name, p in parameters.items() if not name.startswith("text_encoder")]
    found = [
        {"params": network, "scale": 1.0},
        {"params": encoders, "scale": part(text.learning_rate, 0.1) if text else 1.0},
        {"params": words, "scale": part(token.learning_rate, 10.0) if token else 1.0, "weight_decay": 0.0},
    ]
    return [group for group in found if group["params"]]


def new_optimizer(
    kind: Literal["adamw", "adamw8bit"], parameter_groups: list[dict[str, Any]], *, weight_decay: float
) -> torch.optim.Optimizer:
    """``training_step`` sets the learning rate. The 8-bit one (arXiv 2110.02861) needs bitsandbytes and CUDA."""
    if kind == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        optimizer: torch.optim.Optimizer = AdamW8bit(parameter_groups, lr=0.0, weight_decay=weight_decay)
        return optimizer
    return torch.optim.AdamW(parameter_groups, lr=0.0, weight_decay=weight_decay, fused=True)


def missing_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What the optimizer's state takes from the first update on: two moments a parameter; 0 once it has them."""
    if optimizer.state:
        return 0
    moments = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    size = 4 if isinstance(optimizer, torch.optim.AdamW) else 1  # bytes of a moment
    return sum(2 * size * parameter.numel() for parameter in moments)


def new_trainable(
    family: Family, spec: RunSpec, device: torch.device, *, learning_rate: float, weight_decay: float
) -> Trainable:
    denoiser = family.load_denoiser(device)
    parameters = denoiser.add_adapter(spec.adapter, seed=spec.seed)
    optimizer = new_optimizer(
        spec.compute.optimizer, groups(parameters, spec.adapter, learning_rate), weight_decay=weight_decay
    )
    return Trainable(denoiser, parameters, optimizer, dropouts(denoiser.adapted.values()))


def dropouts(networks: Iterable[nn.Module]) -> tuple[nn.Dropout, ...]:
    """Of the adapter, where it has any."""
    return tuple(
        module
        for network in networks
        for name, module in network.named_modules()
        if isinstance(module, nn.Dropout) and "lora_dropout" in name and module.p > 0
    )
