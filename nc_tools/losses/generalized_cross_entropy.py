"""Generalised cross-entropy: between cross-entropy and the mean absolute error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools.losses.base import LossTerm, at_least_float32
from nc_tools.records import Batch, Outputs


def own_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_y, the log-softmax of each sample's own class (N,), at least float32."""
    return -nn.functional.cross_entropy(at_least_float32(logits), labels, reduction="none")


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """(1 - p_y^q) / q per sample. See :class:`GeneralizedCrossEntropy`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        q: In [0, 1].

    Returns:
        (N,).

    Example:
        >>> z, y = torch.zeros(1, 2), torch.tensor([0])
        >>> generalized_cross_entropy(z, y, q=1.0).tolist()
        [0.5]
    """
    log_p = own_log_probability(logits, labels)
    # expm1, because 1 - p^q loses all its digits where p is near 1 or q near 0.
    return -log_p if q == 0 else -torch.expm1(q * log_p) / q


class GeneralizedCrossEntropy(LossTerm):
    """Cross-entropy whose gradient fades on samples that the model finds unlikely: (1 - p_y^q) / q.

    Under label noise those are mostly the mislabelled ones. Each sample's cross-entropy gradient is weighted by p_y^q;
    q -> 0 gives cross-entropy, q = 1 gives 1 - p_y, half of the L1 distance to the one-hot label, which symmetric noise
    does not bias but which hardly learns many classes. Source: Zhang and Sabuncu 2018, eq. 6, without the truncation
    of their section 3.3.

    Args:
        q: In [0, 1]; .7 as in the paper. 0 is cross-entropy itself.

    Raises:
        ValueError: If ``q`` is outside [0, 1].

    Example:
        >>> GeneralizedCrossEntropy()
        GeneralizedCrossEntropy(q=0.7)
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        if not 0 <= q <= 1:
            raise ValueError(f"q must lie in [0, 1], between cross-entropy and the mean absolute error, got {q}")
        self.q = q

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return generalized_cross_entropy(outputs.logits, batch.labels, self.q).mean()

    def extra_repr(self) -> str:
        """Show the exponent in the loss's printout."""
        return f"q={self.q}"
