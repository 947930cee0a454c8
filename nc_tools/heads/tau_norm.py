"""Tau-normalization: make the class vectors of a trained linear classifier more equal in norm, for rare classes."""

from __future__ import annotations

import math
from typing import overload

import torch
from torch import Tensor, nn

from nc_tools.heads.linear import LinearHead


@overload
def tau_normalize(head_or_weight: Tensor, tau: float) -> Tensor: ...
@overload
def tau_normalize(head_or_weight: LinearHead | nn.Linear, tau: float) -> LinearHead: ...
def tau_normalize(head_or_weight: Tensor | LinearHead | nn.Linear, tau: float) -> Tensor | LinearHead:
    """Divide each class vector of a trained classifier by its norm to the power tau: w_k / ||w_k||^tau.

    It is a cheap baseline for long-tailed data. After training on imbalanced data, the norm of w_k is larger for
    classes with more samples, and with it their scores. The division removes that effect without training. tau = 0
    changes no norm, tau = 1 makes all norms one; choose tau on held-out data. **The bias is dropped** for every tau,
    because it contains the prior too. Source: Kang et al. (2020, eq. 3).

    Logits become smaller with the norms, so fit a temperature afterwards, not before.

    Args:
        head_or_weight: A ``LinearHead`` or ``nn.Linear``, which is not changed, or a weight (K, D). Other heads have
            class vectors of equal length already.
        tau: At least 0; usually in [0, 1].

    Returns:
        A new ``LinearHead`` without bias, or a new weight (K, D). A row of zeros stays a row of zeros.

    Raises:
        TypeError: If the first argument is none of these.
        ValueError: If tau is negative or not finite, or the weight is not (K, D).

    Example:
        >>> tau_normalize(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), tau=1.0).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    if not (math.isfinite(tau) and tau >= 0):
        raise ValueError(f"tau must be at least 0 and finite, got {tau}: use a number in [0, 1]")
    if isinstance(head_or_weight, Tensor):
        return _normalized(head_or_weight, tau)
    if not isinstance(head_or_weight, LinearHead | nn.Linear):
        raise TypeError(
            f"tau_normalize needs a LinearHead, an nn.Linear or a weight (K, D), got {type(head_or_weight).__name__}: "
            f"pass the head's weight if the norms of its rows are learned"
        )
    weight = _normalized(head_or_weight.weight.detach(), tau)
    unused = torch.Generator()  # for the initial weights, which are overwritten
    head = LinearHead(weight.shape[1], weight.shape[0], bias=False, generator=unused).to(weight)
    head.weight.data.copy_(weight)
    return head.train(head_or_weight.training)


def _normalized(weight: Tensor, tau: float) -> Tensor:
    if weight.ndim != 2:
        raise ValueError(f"weight must have the shape (K, D), got {tuple(weight.shape)}")
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return (wide / torch.where(norm > 0, norm, torch.ones_like(norm)) ** tau).to(weight.dtype)
