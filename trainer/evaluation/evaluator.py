"""The evaluator: measures the network on held-out pairs, and reports and logs what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainer.cache.cache import Cache
from trainer.data.encoding import EncodedPair
from trainer.evaluation.diagnostics import warnings
from trainer.evaluation.held_out import HeldOutLosses, held_out_losses
from trainer.families.family import Denoiser
from trainer.run_directory.metrics_log import MetricsLog
from trainer.runtime.distributed import ProcessGroup
from trainer.runtime.event_stream import PhaseReporter
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Metrics


@dataclass(frozen=True)
class Evaluator:
    """``draws`` is the number of fixed timesteps and noises of a pair; ``max_steps`` the length of the run."""

    denoiser: Denoiser
    cache: Cache
    draws: int
    timestep_at: Callable[[float], float]
    max_steps: int
    metrics_log: MetricsLog
    device: torch.device
    phases: PhaseReporter
    stop: StopRequest
    process_group: ProcessGroup

    def measure(self, pairs: Sequence[EncodedPair], batch_size: int) -> HeldOutLosses:
        """The losses of the network as it is now, on the fixed draws of these pairs."""
        return held_out_losses(
            self.denoiser,
            pairs,
            self.cache,
            draws=self.draws,
            timestep_at=self.timestep_at,
            batch_size=batch_size,
            device=self.device,
            stop=self.stop,
            progress=self.phases.progress,
            process_group=self.process_group,
        )

    def record(self, measured: Metrics) -> None:
        """Report and log the metrics and, unless they are final, the warnings that follow from them."""
        self.phases.report(measured)
        self.metrics_log.append([{"kind": "validation", **measured.model_dump(exclude={"event"})}])
        if measured.final:
            return
        for warned in warnings(self.metrics_log.rows(), self.max_steps):
            self.phases.report(warned)
            self.metrics_log.append(
                [{"kind": "warning", "step": measured.step, **warned.model_dump(exclude={"event"})}]
            )
