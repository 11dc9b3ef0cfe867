"""The arithmetic of LoRA layers, with less memory traffic than PEFT's own.

PEFT casts each layer's input to the adapter's fp32, multiplies and adds in fp32, and keeps the cast for the backward
pass: three copies for queries, keys and values of the same input. Here the base's precision does the arithmetic, as
under autocast, on the adapter's fp32 parameters, and the input is kept as it is, once.
PEFT still owns the parameters, creates the layers, and loads and saves them.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Conv2d as LoraConv2d
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn


class LoraLinear(torch.autograd.Function):
    r"""A frozen linear layer and its update, $y = x {W'}^\top + b + s\, x A^\top {B'}^\top$, in x's precision.

    x (..., in), W (out, in), b (out) or None, A (rank, in), B (out, rank); A and B are the fp32 parameters.
    LoRA has $W' = W$ and $B' = B$. DoRA scales the rows of both by $m / \lVert W + s B A \rVert$, where the norm counts
    as a constant (arXiv 2402.09353, section 4.3); ``magnitude`` m and ``squared_norms`` of W's rows are (out), in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        magnitude: Tensor | None,
        squared_norms: Tensor | None,
    ) -> Tensor:
        low_down, low_up = down.to(x.dtype), up.to(x.dtype)
        factor = None
        if magnitude is not None and squared_norms is not None:
            factor = (magnitude / row_norms(weight, squared_norms, down, low_down, up, scale)).unsqueeze(1)
        hidden = x.flatten(0, -2) @ low_down.T
        y = F.linear(x, rows_scaled(weight, factor), bias)
        y.view(-1, y.shape[-1]).addmm_(hidden, rows_scaled(low_up, factor).T, alpha=scale)
        ctx.scale, ctx.dtype = scale, down.dtype
        # The output is kept for DoRA alone, and attention keeps most of them anyway.
        kept_output = None if magnitude is None else y
        ctx.save_for_backward(x, weight, bias, low_down, low_up, hidden, magnitude, factor, kept_output)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, down, up, hidden, magnitude, factor, y = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])
        back = gradient @ rows_scaled(up, factor)  # (n, rank)
        down_gradient = (back.T @ x.flatten(0, -2)).to(ctx.dtype)
        up_gradient = rows_scaled((gradient.T @ hidden).to(ctx.dtype), factor)
        if ctx.scale != 1:
            down_gradient, up_gradient = down_gradient * ctx.scale, up_gradient * ctx.scale
        x_gradient = magnitude_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = (gradient @ rows_scaled(weight, factor)).addmm_(back, down, alpha=ctx.scale).view(x.shape)
        if magnitude is not None:
            # y - b is m times what the gradient of m multiplies.
            product = (gradient * y.view(gradient.shape)).sum(dim=0, dtype=magnitude.dtype)
            if bias is not None:
                product -= gradient.sum(dim=0, dtype=magnitude.dtype) * bias
            magnitude_gradient = product / magnitude
        return x_gradient, None, None, down_gradient, up_gradient, None, magnitude_gradient, None


def rows_scaled(matrix: Tensor, factor: Tensor | None) -> Tensor:
    """In the matrix's precision; ``factor`` (rows, 1) has more of it."""
    return matrix if factor is None else torch.mul(matrix, factor, out=torch.empty_like(matrix))


def row_norms(
    weight: Tensor, squared_norms: Tensor, down: Tensor, low_down: Tensor, up: Tensor, scale: float
) -> Tensor:
    r"""$\lVert W + s B A \rVert$ of each row, (out), without another matrix of W's size.

    $\lVert W \rVert^2 + 2 s \langle W A^\top, B \rangle + s^2 \langle B A A^\top, B \rangle$, row by row;
    ``low_down`` is A in W's precision.
    """
    crossed = torch.addmm((weight @ low_down.T).to(up.dtype), up, down @ down.T, beta=2 * scale, alpha=scale**2)
    return (squared_norms + (crossed * up).sum(dim=1)).sqrt()


def use_own_arithmetic(layers: Iterable[Any]) -> None:
    """Give LoRA layers the arithmetic of this file."""
    for layer in layers:
        if layer.lora_magnitude_vector:
            squared = matrix_of(layer.base_layer).float().square().sum(dim=1)
            layer.register_buffer("squared_norms", squared, persistent=False)
        layer.forward = MethodType(forward, layer)


def forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A LoRA layer's, in place of PEFT's, which still computes what the trainer never asks for."""
    base, (name, *others) = layer.base_layer, layer.active_adapters
    if args or kwargs or layer.disable_adapters or layer.merged or others or not trained_here(layer, name):
        return type(layer).forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    dropout, scale = layer.lora_dropout[name], layer.scaling[name]
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    magnitude = layer.lora_magnitude_vector[name].weight if name in layer.lora_magnitude_vector else None
    dropped = isinstance(dropout, nn.Dropout) and dropout.training
    if type(base) is nn.Linear and x.ndim > 1 and not dropped:
        squared_norms = None if magnitude is None else layer.squared_norms
        y: Tensor = LoraLinear.apply(x, base.weight, base.bias, down, up, scale, magnitude, squared_norms)  # type: ignore[no-untyped-call]
        return y
    y = base(x)
    given = dropout(x.to(y.dtype))
    if magnitude is None:
        return updated(layer, name, y, given, scale)
    with torch.no_grad():
        weight, flat = matrix_of(base), down.flatten(1)
        norms = row_norms(weight, layer.squared_norms, flat, flat.to(weight.dtype), up.flatten(1), scale)
    rows = (-1, *[1] * (down.ndim - 2))  # of the output: (..., rows) or (..., rows, height, width)
    factor = (magnitude.flatten() / norms).view(rows)
    plain = base(given) if dropped else y
    if base.bias is not None:
        plain = plain - base.bias.view(rows)
    update = updated(layer, name, torch.zeros_like(y), given, scale)
    whole: Tensor = y + (factor - 1) * plain + factor * update
    return whole.to(y.dtype)


def trained_here(layer: Any, name: str) -> bool:
    """Whether the adapter is one that the trainer makes: LoRA or DoRA without a bias, on a frozen layer."""
    if name not in layer.lora_A or layer.lora_bias[name] or layer.base_layer.weight.requires_grad:
        return False
    return name not in layer.lora_variant or (name in layer.lora_magnitude_vector and hasattr(layer, "squared_norms"))


def updated(layer: Any, name: str, y: Tensor, x: Tensor, scale: float) -> Tensor:
    """y + s B A x, where the layer computed y by itself."""
    down, up = layer.lora_A[name], layer.lora_B[name]
    scaled_down, up_weight = (down.weight * scale).to(y.dtype), up.weight.to(y.dtype)
    if isinstance(layer, LoraConv2d):
        hidden = F.conv2d(x, scaled_down, None, down.stride, down.padding)
        return y.add_(F.conv2d(hidden, up_weight, groups=up.groups))
    # Not in place: a quantised base's output may be a view that autograd lets nobody write to.
    hidden = x.flatten(0, -2) @ scaled_down.T
    return torch.addmm(y.reshape(-1, y.shape[-1]), hidden, up_weight.T).view(y.shape)


def matrix_of(base: nn.Module) -> Tensor:
    """The frozen layer's weight, (out, whatever one output is made of)."""
    weight: Tensor = dequantize_module_weight(base)
    return weight.detach().flatten(1)
