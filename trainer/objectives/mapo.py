r"""Margin-aware preference optimization (MaPO), arXiv 2406.06424v2: no reference model.

$L_w, L_l \ge 0$ are the mean squared denoising errors of the chosen and the rejected image, at the same timestep and
noise. Both forms rest on $f(x) = x / (e^x - 1)$, which falls from 1 at $x = 0$ to 0. Its logarithm

$$\log f(x) = -\tfrac{x}{2} - \log\frac{\sinh(x/2)}{x/2}$$

is what is computed: as a series near 0, where $f$ itself is 0/0, and as $\log x - x - \log(1 - e^{-x})$ elsewhere,
where $e^x$ would overflow. Values and gradients are then right over the whole range 0 to 1e4 in fp32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.objectives.objective import Loss, Terms, required
from trainer.spec.methods import MapoHyperparameters

SERIES_BELOW = 1.0  # there the series' first omitted term is 4e-10 of the sum


def mapo(terms: Terms[MapoHyperparameters]) -> Loss:
    if terms.hyperparameters.form == "paper":
        return lambda pair: paper_loss(pair.chosen, required(pair.rejected), beta=terms.beta)
    return lambda pair: reference_code_loss(
        pair.chosen, required(pair.rejected), beta=terms.beta, num_train_timesteps=terms.num_train_timesteps
    )


def paper_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    r"""MaPO as published (eq. 9-11): $L_w - \frac1\beta \log\sigma(\phi(L_w) - \phi(L_l))$, $\phi(l) = f(l)^\beta$.

    A larger ``beta`` is satisfied by a smaller margin and is closer to training on the chosen image alone.

    Shapes: ``chosen``, ``rejected`` (pairs,), mean squared errors; returns (pairs,) fp32, not averaged.
    """
    with torch.autocast(chosen.device.type, enabled=False):
        chosen, rejected = chosen.float(), rejected.float()
        margin = torch.exp(beta * log_f(chosen)) - torch.exp(beta * log_f(rejected))
        return chosen - F.logsigmoid(margin) / beta


def reference_code_loss(
    chosen: Tensor, rejected: Tensor, *, beta: float = 0.1, snr_value: float = 0.5, num_train_timesteps: int = 1000
) -> Tensor:
    r"""MaPO as in the authors' code: $L_w - \beta \log\sigma(T (f(s L_w) - f(s L_l)))$, $s$ = ``snr_value``.

    Here ``beta`` weighs the margin term (0.1 in that code, github.com/mapo-t2i/mapo), and T = ``num_train_timesteps``
    makes the margin dominate until a pair is separated: a much stronger push than the published form.

    Shapes: ``chosen``, ``rejected`` (pairs,), mean squared errors; returns (pairs,) fp32, not averaged.
    """
    with torch.autocast(chosen.device.type, enabled=False):
        chosen, rejected = chosen.float(), rejected.float()
        margin = torch.exp(log_f(snr_value * chosen)) - torch.exp(log_f(snr_value * rejected))
        return chosen - beta * F.logsigmoid(num_train_timesteps * margin)


def log_f(x: Tensor) -> Tensor:
    r"""$\log\frac{x}{e^x - 1}$ for $x \ge 0$, elementwise, with the gradient $-\frac12$ at 0; any shape, fp32."""
    near = x < SERIES_BELOW
    # Each branch sees harmless values where the other is taken: a NaN there would reach the gradient through `where`.
    small = torch.where(near, x, 0.0)
    large = torch.where(near, SERIES_BELOW, x)
    square = (small / 2).square()
    log_sinhc = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square * (1 / 37800 - square / 467775))))
    series = -small / 2 - log_sinhc
    closed = large.log() - large - torch.log(-torch.expm1(-large))
    return torch.where(near, series, closed)
