"""Geometric complexity: how much the output of a network changes with its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GeometricComplexity:
    """The geometric complexity of a network, a mean over samples, with its standard error.

    Attributes:
        value: mean_i ||df(x_i)/dx||_F^2.
        standard_error: Standard error of that mean, over samples (and probes, if it is an estimate); None for one
            sample.
        exact: True if every output was differentiated, False if random combinations of the outputs were.
    """

    value: float
    standard_error: float | None
    exact: bool


def geometric_complexity(
    function: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> GeometricComplexity:
    """Measure the mean squared norm of the Jacobian of logits, or of features, with respect to the input.

    Simple functions change little between samples; lower complexity of the features goes with stronger collapse and
    better transfer. With J the Jacobian of ``function`` at a sample,

        exact (``probes=None``)   ||J||_F^2, one backward pass for each of the K outputs: for small K
        Hutchinson (``probes=m``)  mean over m random v in {-1, 1}^K of ||J^T v||^2, unbiased; m backward passes

    Sources: Dherin et al. (2022) and Munn et al. (2024); the estimator of Hutchinson (1990). The value depends on the
    scale of inputs and outputs: compare networks on the same normalized images, and logits of the same scale.

    Args:
        function: Maps inputs to outputs (N, K), each sample by itself. A module is set to eval mode for the call.
        inputs: (N, ...), floating-point.
        probes: Number of random combinations m, or None for all outputs one by one.
        generator: Draws the random signs, on its own device.

    Raises:
        TypeError: If the inputs are not floating-point.
        ValueError: If there is no sample, ``probes`` is not positive, the output is not (N, K), or a gradient is not
            finite.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 2.0], [0.0, 2.0]]))
        >>> geometric_complexity(layer, torch.zeros(4, 2)).value
        9.0
    """
    if not inputs.is_floating_point():
        raise TypeError(f"inputs must be floating-point for gradients, got {inputs.dtype}: convert them with .float()")
    if len(inputs) == 0:
        raise ValueError("geometric complexity needs at least one sample, got none")
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}: leave it out to compute the exact value")
    modules = list(function.modules()) if isinstance(function, nn.Module) else []
    modes = [(module, module.training) for module in modules]
    for module in modules:
        module.training = False
    try:
        with torch.enable_grad():
            squares = _squares(function, inputs.detach().clone().requires_grad_(), probes, generator)
    finally:
        for module, training in modes:
            module.training = training
    if not bool(squares.isfinite().all()):
        bad = int((~squares.isfinite()).sum())
        raise ValueError(
            f"gradients must be finite, but those of {bad} of {len(inputs)} samples hold NaN or inf: remove these "
            "samples, or check the model"
        )
    error = float(squares.std() / len(squares) ** 0.5) if len(squares) > 1 else None
    return GeometricComplexity(float(squares.mean()), error, exact=probes is None)


def _squares(
    function: Callable[[Tensor], Tensor], x: Tensor, probes: int | None, generator: torch.Generator | None
) -> Tensor:
    outputs = function(x)
    if outputs.ndim != 2 or len(outputs) != len(x):
        raise ValueError(f"the function must return outputs of shape ({len(x)}, K), got {tuple(outputs.shape)}")
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    passes = outputs.shape[1] if probes is None else probes
    for step in range(passes):
        if probes is None:
            direction = torch.zeros_like(outputs)
            direction[:, step] = 1
        else:
            device = outputs.device if generator is None else generator.device
            bits = torch.randint(2, outputs.shape, generator=generator, device=device)
            direction = (2 * bits - 1).to(outputs)
        (gradient,) = torch.autograd.grad(outputs, x, direction, retain_graph=step + 1 < passes)
        total += gradient.double().flatten(1).square().sum(dim=1)
    return total if probes is None else total / probes
