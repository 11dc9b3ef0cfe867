"""What training changes: the adapter's parameters and the optimizer's state, and their plain copies in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.families.family import Denoiser, Family
from trainer.spec.run import RunSpec


@dataclass(frozen=True)
class Learner:
    """``parameters`` are the trainable ones of ``denoiser.network``, by name."""

    denoiser: Denoiser
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.AdamW

    def weights(self) -> dict[str, Tensor]:
        """Copies on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        """Keyed "<parameter>.<state>", the state being step, exp_avg or exp_avg_sq."""
        return {
            f"{name}.{kind}": tensor
            for name, parameter in self.parameters.items()
            for kind, tensor in self.optimizer.state[parameter].items()
        }

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def load_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        states: list[dict[str, Tensor]] = [{} for _ in self.parameters]
        positions = {name: position for position, name in enumerate(self.parameters)}
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition(".")
            states[positions[name]][kind] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(enumerate(states)), "param_groups": groups})


def new_optimizer(parameters: Sequence[nn.Parameter], *, weight_decay: float) -> torch.optim.AdamW:
    """``training_step`` sets the learning rate: the step's, times the group's ``scale``."""
    groups = [{"params": list(parameters), "scale": 1.0}]
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=weight_decay, fused=True)


def new_learner(family: Family, spec: RunSpec, device: torch.device, *, weight_decay: float) -> Learner:
    denoiser = family.load_denoiser(device)
    parameters = denoiser.add_adapter(spec.adapter, seed=spec.seed)
    return Learner(denoiser, parameters, new_optimizer(list(parameters.values()), weight_decay=weight_decay))
