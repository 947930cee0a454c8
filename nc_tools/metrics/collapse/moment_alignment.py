"""How well the second moments of features, gradients and weights are aligned at a linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools._support.suggestions import did_you_mean
from nc_tools.metrics.collapse.mean_geometry import finite_values


def moment_alignment(inputs: Tensor, gradients: Tensor, weight: Tensor) -> dict[str, float]:
    """Measure how well the second moments of features, gradients and weights of one linear layer are aligned.

    In a network that has converged under weight decay and gradient noise, the inputs of a layer, their gradients and
    its weights share their directions; collapse is this property of the last layer. For b = W a with gradients g_b of
    each sample's loss with respect to b, and g_a = W^T g_b,

        H_a = mean a a^T    G_a = mean g_a g_a^T    Z_a = W^T W        before the layer
        H_b = mean b b^T    G_b = mean g_b g_b^T    Z_b = W W^T        after it

    and each key is a cosine tr(A B)/(||A||_F ||B||_F): ``before/feature_gradient``, ``before/feature_weight``,
    ``before/gradient_weight`` and the same with ``after/``. 1 means aligned. Unrelated matrices of width D do not have
    cosine 0 but about their effective rank over D, since all are positive semidefinite: compare with a network at
    initialization.

    Source: the six relations of Ziyin et al. (2024). Second moments, not covariances; the bias of the layer is not
    used.

    Args:
        inputs: a (N, A).
        gradients: Gradient of each sample's own loss with respect to the layer's outputs (N, B).
        weight: (B, A).

    Returns:
        The six cosines by name; no key if one of the two matrices is zero.

    Raises:
        TypeError: If an argument is not floating-point.
        ValueError: If shapes do not fit, there is no sample or a value is not finite.

    Example:
        >>> values = moment_alignment(torch.eye(2), torch.eye(2), torch.eye(2))
        >>> sorted({round(value, 6) for value in values.values()}), len(values)
        ([1.0], 6)
    """
    rows = {"inputs": inputs, "gradients": gradients, "weight": weight}
    for name, part in rows.items():
        if part.ndim != 2:
            raise ValueError(f"{name} must have two dimensions, got the shape {tuple(part.shape)}")
    if len(inputs) == 0 or len(inputs) != len(gradients) or weight.shape != (gradients.shape[1], inputs.shape[1]):
        raise ValueError(
            f"inputs (N, A), gradients (N, B) and weight (B, A) must fit each other, got {tuple(inputs.shape)}, "
            f"{tuple(gradients.shape)} and {tuple(weight.shape)}"
        )
    with measuring_precision(inputs.device):
        a, g, w = (at_least_float32(part.detach()).double() for part in rows.values())
        for name, part in zip(rows, (a, g, w), strict=True):
            bad = count_bad_rows(part)
            if bad:
                raise ValueError(f"{name} must be finite, but {bad} of {len(part)} rows hold NaN or inf")
        feature, gradient = a.T @ a, g.T @ g  # the cosine does not depend on their scale
        sides = {
            "before": {"feature": feature, "gradient": w.T @ gradient @ w, "weight": w.T @ w},
            "after": {"feature": w @ feature @ w.T, "gradient": gradient, "weight": w @ w.T},
        }
        return finite_values(
            {
                f"{side}/{one}_{two}": _cosine(moments[one], moments[two])
                for side, moments in sides.items()
                for one, two in combinations(moments, 2)
            }
        )


def layer_alignment(
    model: nn.Module, inputs: Tensor | Mapping[str, Any], labels: Tensor, layers: Sequence[str] | None = None
) -> dict[str, float]:
    """Measure the moment alignment of a classifier's linear layers on one batch, with the cross-entropy loss.

    It takes one forward and one backward pass in eval mode, and does not change the ``grad`` of parameters. For a layer
    that runs on every token, each token counts as a sample.

    Args:
        model: Maps inputs to logits (N, K), or to an object with the attribute ``logits``.
        inputs: A batch, or the model's named arguments.
        labels: (N,).
        layers: Dotted names of ``nn.Linear`` layers; by default all that run once.

    Returns:
        "<layer>/before/feature_gradient", and so on.

    Raises:
        ValueError: If the model has no linear layer of that name (the message suggests similar names), or a layer does
            not run exactly once.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        >>> values = layer_alignment(net, torch.randn(8, 4), torch.arange(8) % 3)
        >>> len(values), "2/after/feature_weight" in values
        (12, True)
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name in layers or ():
        if name not in linear:
            raise ValueError(f"{type(model).__name__} has no linear layer {name!r}; {did_you_mean(name, linear)}")
    measured = linear if layers is None else {name: linear[name] for name in layers}
    passes: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in measured}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            # If every parameter is frozen, the output becomes a leaf, so that it has a gradient.
            tracked = output if output.requires_grad else output.detach().requires_grad_()
            passes[name].append((arguments[0].detach(), tracked))
            return tracked

        return hook

    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(record(name)) for name, module in measured.items()]
    model.eval()
    try:
        with torch.enable_grad():
            output = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
            logits = output if isinstance(output, Tensor) else output.logits
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device), reduction="sum")
            ran = [name for name in measured if len(passes[name]) == 1]
            not_once = [name for name in measured if layers is not None and name not in ran]
            if not_once:
                name = not_once[0]
                raise ValueError(
                    f"a layer must run once in a forward pass, but {name!r} ran {len(passes[name])} times: leave it "
                    "out of layers"
                )
            gradients = torch.autograd.grad(loss, [passes[name][0][1] for name in ran], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    result: dict[str, float] = {}
    for name, gradient in zip(ran, gradients, strict=True):
        if gradient is not None:
            layer_inputs = passes[name][0][0].flatten(0, -2)
            values = moment_alignment(layer_inputs, gradient.flatten(0, -2), measured[name].weight)
            result |= {f"{name}/{key}": value for key, value in values.items()}
    return result


def _cosine(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum() / (one.square().sum() * two.square().sum()).sqrt()
