"""Generalized cross-entropy: between cross-entropy and the mean absolute error."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.losses._one_softmax import Reduction, SurpriseFormula, of_surprise
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7, reduction: Reduction = "none") -> Tensor:
    """(1 - p_y^q) / q per sample or as their mean. See :class:`GeneralizedCrossEntropyLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        q: In [0, 1].
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Example:
        >>> z, y = torch.zeros(1, 2), torch.tensor([0])
        >>> generalized_cross_entropy(z, y, q=1.0).tolist()
        [0.5]
    """
    return of_surprise(logits, labels, _generalized(q), reduction)


def _generalized(q: float) -> SurpriseFormula:
    def formula(s: Tensor) -> tuple[Tensor, Tensor]:
        # expm1, because 1 - p^q loses all its digits where p is near 1 or q near 0.
        value = s if q == 0 else torch.expm1(-q * s) / -q
        return value, 1 - q * value  # p^q

    return formula


class GeneralizedCrossEntropyLoss(LossTerm):
    """Cross-entropy whose gradient fades on samples that the model finds unlikely: (1 - p_y^q) / q.

    Under label noise those are mostly the mislabeled ones. Each sample's cross-entropy gradient is weighted by p_y^q;
    q -> 0 gives cross-entropy, q = 1 gives 1 - p_y, half of the L1 distance to the one-hot label, which symmetric noise
    does not bias but which hardly learns many classes. Source: Zhang and Sabuncu 2018, eq. 6, without the truncation
    of their section 3.3.

    Args:
        q: In [0, 1]; .7 as in the paper. 0 is cross-entropy itself.

    Raises:
        ValueError: If ``q`` is outside [0, 1].

    Example:
        >>> GeneralizedCrossEntropyLoss()
        GeneralizedCrossEntropyLoss(q=0.7)
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in [0, 1], between cross-entropy and the mean absolute error, got {q}")
        self.q = q

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return generalized_cross_entropy(outputs.logits, batch.labels, self.q, "mean")

    def extra_repr(self) -> str:
        """Show the exponent in the loss's printout."""
        return f"q={self.q}"
