"""The transition matrix of label noise, T_ij = P(given label j | true class i): checks, counts and errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Allowed deviation of a row's sum from one: entries with six digits pass.
_ROUNDING = 1e-5


def checked_transition(matrix: Tensor | Sequence[Sequence[float]], num_classes: int | None = None) -> Tensor:
    """Check a transition matrix of label noise, and return it in float64 with rows that sum to exactly one.

    Args:
        matrix: (K, K), rows are true classes.
        num_classes: K; None accepts any size.

    Raises:
        ValueError: If it is not square or not K x K, an entry is not a probability, or a row does not sum to 1.

    Example:
        >>> checked_transition([[0.9, 0.1], [0.3, 0.6]])
        Traceback (most recent call last):
            ...
        ValueError: each row of a transition matrix must sum to 1, but row 1 sums to 0.9: rows are true classes \
(transpose the matrix if its columns are)
    """
    widths = {len(row) for row in matrix}
    if len(widths) != 1 or widths != {len(matrix)}:
        raise ValueError(f"a transition matrix must be square, got {len(matrix)} rows of {sorted(widths)} entries")
    if num_classes is not None and len(matrix) != num_classes:
        raise ValueError(
            f"a transition matrix of {num_classes} classes must have the shape ({num_classes}, {num_classes}), got "
            f"({len(matrix)}, {len(matrix)})"
        )
    entries = torch.as_tensor(matrix, dtype=torch.float64).detach().cpu()
    if not bool(((entries >= 0) & (entries <= 1 + _ROUNDING)).all()):
        raise ValueError(
            f"a transition matrix must hold probabilities in [0, 1], got entries from {entries.min():g} to "
            f"{entries.max():g}"
        )
    sums = entries.sum(1)
    row = int((sums - 1).abs().argmax())
    if not abs(float(sums[row]) - 1) <= _ROUNDING:
        raise ValueError(
            f"each row of a transition matrix must sum to 1, but row {row} sums to {sums[row]:g}: rows are true "
            "classes (transpose the matrix if its columns are)"
        )
    return entries / sums[:, None]


def counted_transition(true_labels: Tensor, given_labels: Tensor, num_classes: int) -> Tensor:
    """Count the transition matrix of known true labels: the share of each given label in each true class.

    Args:
        true_labels: (N,), int64.
        given_labels: (N,), int64.
        num_classes: K.

    Returns:
        (K, K), float64; a class without a sample has the row of the identity matrix.

    Raises:
        TypeError: If the labels are not class indices of the same samples.
        ValueError: If a label is out of range, or K is below 1.

    Example:
        >>> counted_transition(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    if num_classes < 1:
        raise ValueError(f"a transition matrix needs num_classes >= 1, got {num_classes}")
    for labels in (true_labels, given_labels):
        if (
            labels.ndim != 1
            or labels.is_floating_point()
            or labels.dtype == torch.bool
            or len(labels) != len(true_labels)
        ):
            raise TypeError(
                f"true and given labels must be class indices (N,) of the same samples, got {true_labels.dtype} of "
                f"shape {tuple(true_labels.shape)} and {given_labels.dtype} of shape {tuple(given_labels.shape)}"
            )
        if outside := int(((labels < 0) | (labels >= num_classes)).sum()):
            raise ValueError(f"labels must lie in [0, {num_classes}), but {outside} of them do not")
    pairs = torch.bincount(true_labels * num_classes + given_labels, minlength=num_classes**2)
    pairs = pairs.view(num_classes, num_classes).double()
    totals = pairs.sum(1, keepdim=True)
    eye = torch.eye(num_classes, dtype=torch.float64, device=pairs.device)
    return torch.where(totals > 0, pairs / totals.clamp(min=1), eye)


def transition_error(estimate: Tensor, true: Tensor) -> float:
    """Return the distance between two transition matrices (K, K): mean_i sum_j |A_ij - B_ij| / 2, from 0 to 1.

    Example:
        >>> transition_error(torch.eye(2), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
        0.25
    """
    return float((estimate.double().cpu() - true.double().cpu()).abs().sum(1).mean() / 2)
