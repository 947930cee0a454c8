"""Stable rank: the effective number of directions of a weight matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools._support.precision import measuring_precision


def stable_rank(matrix: Tensor) -> float:
    """Return the stable rank of a matrix, ||A||_F^2 / ||A||_2^2.

    It is 1 if only one singular value is nonzero, and equal to the rank if all nonzero singular values are equal.
    Unlike the rank it does not jump when a singular value passes a threshold. Under weight decay, it falls to K - 1
    in the layers after the one where classes have collapsed. Source: Rudelson and Vershynin (2007).

    Args:
        matrix: (rows, columns).

    Raises:
        TypeError: If it is not floating-point.
        ValueError: If it is not a matrix, is zero, or holds NaN or inf.

    Example:
        >>> round(stable_rank(torch.tensor([[2.0, 0.0], [0.0, 1.0]])), 6)
        1.25
    """
    if not matrix.is_floating_point():
        raise TypeError(f"a stable rank needs floating-point numbers, got {matrix.dtype}: convert them with .float()")
    if matrix.ndim != 2:
        raise ValueError(f"a stable rank needs a matrix, got the shape {tuple(matrix.shape)}")
    with measuring_precision(matrix.device):
        a = matrix.detach().double()
        if not bool(a.isfinite().all()):
            raise ValueError("a stable rank needs finite entries, but the matrix holds NaN or inf")
        squares = torch.linalg.eigvalsh(a @ a.T if len(a) <= a.shape[1] else a.T @ a)
        if not float(squares[-1]) > 0:
            raise ValueError("a matrix of zeros has no stable rank")
        return float(squares.sum() / squares[-1])


def stable_ranks(model: nn.Module) -> dict[str, float]:
    """Return the stable rank of every layer of a model that has a weight matrix, by the layer's dotted name.

    A convolution's kernel (out, in, height, width) is read as the matrix (out, in x height x width): the map from a
    patch to the channels, not the whole convolution. The matrix of a head of this package is its class vectors.
    Embeddings and weights that are zero are left out.

    Args:
        model: Any module.

    Raises:
        ValueError: If no layer has a weight matrix, or one holds NaN or inf (the message names it).

    Example:
        >>> list(stable_ranks(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
        ['0', '2']
    """
    ranks: dict[str, float] = {}
    for name, module in model.named_modules():
        weight = None if isinstance(module, nn.Embedding | nn.EmbeddingBag) else getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2 or not weight.is_floating_point() or not weight.any():
            continue
        try:
            ranks[name] = stable_rank(weight.detach().flatten(1))
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from None
    if not ranks:
        raise ValueError(f"{type(model).__name__} has no layer with a weight matrix, so no stable rank can be computed")
    return ranks
