"""Whether second moments of features, gradients and weights agree, on both sides of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools._support.suggestions import did_you_mean
from nc_tools.metrics.collapse.mean_geometry import defined


def moment_alignment(inputs: Tensor, gradients: Tensor, weight: Tensor) -> dict[str, float]:
    """Measure how far features, gradients and weights of one linear layer have become aligned.

    In a network that has settled under weight decay and gradient noise, what a layer sees, what it is asked to change
    and what it computes share their directions; collapse is the case of the last layer. For b = W a with gradients
    g_b of each sample's loss with respect to b, and g_a = W^T g_b,

        H_a = mean a a^T    G_a = mean g_a g_a^T    Z_a = W^T W        before the layer
        H_b = mean b b^T    G_b = mean g_b g_b^T    Z_b = W W^T        after it

    and each key is a cosine tr(A B)/(||A||_F ||B||_F): ``before/feature_gradient``, ``before/feature_weight``,
    ``before/gradient_weight`` and the same with ``after/``. 1 is aligned; unrelated matrices of width D do not score 0
    but about their effective rank over D, since all are positive: compare with a network at initialization.

    Source: the six relations of Ziyin et al. (2024). Second moments, not covariances; the layer's bias enters none.

    Args:
        inputs: a (N, A).
        gradients: Of each sample's own loss with respect to the layer's outputs (N, B).
        weight: (B, A).

    Returns:
        The six cosines by name; no key where one of the two matrices is zero.

    Raises:
        TypeError: If something is not floating-point.
        ValueError: If shapes do not fit, there is no sample or a value is not finite.

    Example:
        >>> found = moment_alignment(torch.eye(2), torch.eye(2), torch.eye(2))
        >>> sorted({round(value, 6) for value in found.values()}), len(found)
        ([1.0], 6)
    """
    rows = {"inputs": inputs, "gradients": gradients, "weight": weight}
    for name, part in rows.items():
        if part.ndim != 2:
            raise ValueError(f"{name} must have two dimensions, got the shape {tuple(part.shape)}")
    if len(inputs) == 0 or len(inputs) != len(gradients) or weight.shape != (gradients.shape[1], inputs.shape[1]):
        raise ValueError(
            f"inputs (N, A), gradients (N, B) and weight (B, A) must fit, got {tuple(inputs.shape)}, "
            f"{tuple(gradients.shape)} and {tuple(weight.shape)}"
        )
    with measuring_precision(inputs.device):
        a, g, w = (at_least_float32(part.detach()).double() for part in rows.values())
        for name, part in zip(rows, (a, g, w), strict=True):
            bad = int((~part.isfinite().all(dim=1)).sum())
            if bad:
                raise ValueError(f"{name} must be finite, but {bad} of {len(part)} rows hold NaN or inf")
        feature, gradient = a.T @ a, g.T @ g  # their scale falls out of the cosine
        sides = {
            "before": {"feature": feature, "gradient": w.T @ gradient @ w, "weight": w.T @ w},
            "after": {"feature": w @ feature @ w.T, "gradient": gradient, "weight": w @ w.T},
        }
        return defined(
            {
                f"{side}/{one}_{two}": _cosine(moments[one], moments[two])
                for side, moments in sides.items()
                for one, two in combinations(moments, 2)
            }
        )


def layer_alignment(
    model: nn.Module, inputs: Tensor | Mapping[str, Any], labels: Tensor, layers: Sequence[str] | None = None
) -> dict[str, float]:
    """Return ``moment_alignment`` of linear layers of a classifier on one batch, with the cross-entropy of each sample.

    One forward and one backward pass in eval mode; no parameter's gradient is touched. A layer that runs on every
    token counts each token as a sample.

    Args:
        model: Inputs to logits (N, K).
        inputs: A batch, or named arguments.
        labels: (N,).
        layers: Dotted names of ``nn.Linear`` layers; by default all that run.

    Returns:
        "<layer>/before/feature_gradient", and so on.

    Raises:
        ValueError: If a layer is unknown (the nearest names are offered), is not linear, or does not run once.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        >>> found = layer_alignment(net, torch.randn(8, 4), torch.arange(8) % 3)
        >>> len(found), "2/after/feature_weight" in found
        (12, True)
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name in layers or ():
        if name not in linear:
            raise ValueError(f"{type(model).__name__} has no linear layer {name!r}; {did_you_mean(name, linear)}")
    chosen = linear if layers is None else {name: linear[name] for name in layers}
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in chosen}

    def keep(name: str) -> Any:
        def note(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            # A leaf when every parameter is frozen, so that a gradient can be asked for.
            followed = output if output.requires_grad else output.detach().requires_grad_()
            seen[name].append((arguments[0].detach(), followed))
            return followed

        return note

    before = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(keep(name)) for name, module in chosen.items()]
    model.eval()
    try:
        with torch.enable_grad():
            output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
            logits = output if isinstance(output, Tensor) else output.logits
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device), reduction="sum")
            ran = [name for name in chosen if len(seen[name]) == 1]
            missed = [name for name in chosen if layers is not None and name not in ran]
            if missed:
                raise ValueError(f"a layer must run once in a pass, and {missed[0]!r} ran {len(seen[missed[0]])} times")
            slopes = torch.autograd.grad(loss, [seen[name][0][1] for name in ran], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in before:
            module.training = training
    found: dict[str, float] = {}
    for name, slope in zip(ran, slopes, strict=True):
        if slope is not None:
            told = moment_alignment(seen[name][0][0].flatten(0, -2), slope.flatten(0, -2), chosen[name].weight)
            found |= {f"{name}/{key}": value for key, value in told.items()}
    return found


def _cosine(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum() / (one.square().sum() * two.square().sum()).sqrt()
