"""Generalized cross-entropy: between cross-entropy and the mean absolute error."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import OneSoftmaxLoss, of_nll
from nc_tools.losses._rows import Reduction, rows_of


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7, reduction: Reduction = "none") -> Tensor:
    """Return (1 - p_y^q) / q for each sample or reduced. See :class:`GeneralizedCrossEntropyLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        q: In [0, 1].
        reduction: "none", "mean" or "sum".

    Returns:
        (N,), or a scalar.

    Example:
        >>> z, y = torch.zeros(1, 2), torch.tensor([0])
        >>> generalized_cross_entropy(z, y, q=1.0).tolist()
        [0.5]
    """
    formula = partial(_generalized, q=q)
    return rows_of(logits, labels).apply(lambda z, y, r: of_nll(z, y, formula, r), reduction)


def _generalized(nll: Tensor, q: float) -> tuple[Tensor, Tensor]:
    # expm1, because 1 - p^q loses all its digits where p is near 1 or q near 0.
    value = nll if q == 0 else torch.expm1(-q * nll) / -q
    return value, 1 - q * value  # p^q


class GeneralizedCrossEntropyLoss(OneSoftmaxLoss):
    """Cross-entropy with smaller gradients for samples that the model finds unlikely: (1 - p_y^q) / q.

    Under label noise those are mostly the mislabeled samples. The cross-entropy gradient of each sample is multiplied
    by p_y^q. q -> 0 gives cross-entropy. q = 1 gives 1 - p_y, half of the L1 distance to the one-hot label: symmetric
    noise does not bias it, but with many classes a network hardly learns from it. Source: Zhang and Sabuncu 2018,
    eq. 6, without the truncation of their section 3.3.

    Args:
        q: In [0, 1]; .7 in the paper. 0 is cross-entropy.

    Raises:
        ValueError: If ``q`` is outside [0, 1].

    Example:
        >>> GeneralizedCrossEntropyLoss(q=1.0)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.5000)
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in [0, 1], got {q}. 0 is cross-entropy, 1 the mean absolute error.")
        self.q = q

    def formula(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative for each negative log-likelihood."""
        return _generalized(nll, self.q)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"q={self.q}"
