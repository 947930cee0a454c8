"""Class weights from class counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.losses._class_counts import checked_counts


def effective_number(class_counts: Tensor | Sequence[int], beta: float = 0.9999) -> Tensor:
    """Return the effective number of samples of each class, (1 - beta^n_k) / (1 - beta), float64 (K,).

    It is the expected number of distinct samples if a new sample may repeat an old one: 1 for beta = 0, and n_k in the
    limit beta = 1 (Cui et al. 2019, proposition 1). It is 0 for a class without samples.

    Args:
        class_counts: Training samples of each class (K,).
        beta: In [0, 1].

    Raises:
        ValueError: If beta is outside [0, 1], a count is negative or all are 0.

    Example:
        >>> effective_number([1, 2, 0], beta=0.5).tolist()
        [1.0, 1.5, 0.0]
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1], got {beta}. Usual values are .9 to .9999.")
    counts = checked_counts(class_counts)
    if beta == 1:
        return counts
    if beta == 0:
        return (counts > 0).to(counts.dtype)
    # expm1, because 1 - .9999^n loses four digits to cancellation for a rare class.
    decay = torch.tensor(beta, dtype=torch.float64, device=counts.device).log()
    return -torch.expm1(counts * decay) / (1 - beta)


def class_balanced_weights(class_counts: Tensor | Sequence[int], beta: float = 0.9999) -> Tensor:
    """Return class weights proportional to 1 / :func:`effective_number`, which sum to K; float32 (K,).

    They are equal for beta = 0 and inverse class frequencies for beta = 1 (Cui et al. 2019, section 4). A class without
    samples has the weight 0, and the others sum to their number.

    Args:
        class_counts: Training samples of each class (K,).
        beta: In [0, 1].

    Raises:
        ValueError: If beta is outside [0, 1], a count is negative or all are 0.

    Example:
        >>> class_balanced_weights([3, 1], beta=1.0).tolist()
        [0.5, 1.5]
    """
    effective = effective_number(class_counts, beta)
    present = effective > 0
    inverse = torch.where(present, effective, 1).reciprocal() * present
    return (inverse * (present.sum() / inverse.sum())).to(torch.float32)
