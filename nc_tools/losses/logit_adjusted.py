"""Logit adjustment for class imbalance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nc_tools.losses.base import LossTerm, at_least_float32
from nc_tools.records import Batch, Outputs


def log_prior(class_counts: Tensor | Sequence[int]) -> Tensor:
    """Return log(n_k / n), float32 (K,).

    Raises:
        ValueError: If a class has no sample: its prior would be minus infinity.

    Example:
        >>> log_prior([3, 1]).exp().tolist()
        [0.75, 0.25]
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    empty = (counts <= 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"every class needs at least one training sample, but classes {empty} have none: leave them out"
        )
    return (counts / counts.sum()).log().to(torch.float32)


def logit_adjusted_cross_entropy(
    logits: Tensor, labels: Tensor, class_counts: Tensor | Sequence[int], tau: float = 1.0
) -> Tensor:
    """Cross-entropy of z + tau log(pi), pi the training prior: for your own loop. See :class:`LogitAdjusted`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        class_counts: Training samples of each class (K,).
        tau: Strength; 0 is plain cross-entropy.

    Example:
        >>> z, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
        >>> logit_adjusted_cross_entropy(z, y, [5, 5]).item() == nn.functional.cross_entropy(z, y).item()
        True
    """
    shift = tau * log_prior(class_counts).to(logits.device)
    return nn.functional.cross_entropy(at_least_float32(logits) + shift, labels)


def adjust_logits(logits: Tensor, class_counts: Tensor | Sequence[int], tau: float = 1.0) -> Tensor:
    """Post hoc logit adjustment: z - tau log(pi), for a model that was trained with plain cross-entropy.

    The sign is the opposite of the training form: there the shift makes the model learn scores free of the prior, here
    the prior that it did learn is taken out (Menon et al. 2021, eq. 9).

    Args:
        logits: (N, K).
        class_counts: Training samples of each class (K,).
        tau: Strength.

    Returns:
        (N, K): scores for the balanced error.

    Example:
        >>> adjust_logits(torch.zeros(1, 2), [9, 1]).argmax().item()
        1
    """
    return at_least_float32(logits) - tau * log_prior(class_counts).to(logits.device)


class LogitAdjusted(LossTerm):
    """Logit-adjusted cross-entropy: -log softmax(z + tau log pi)_y, pi_k = n_k / n.

    Consistent for the balanced error: the shift stands in for the training prior, so that z itself is free of it
    (Menon et al. 2021, eq. 10). At tau = 1 the same as balanced softmax (Ren et al. 2020) and as the ARB loss with
    global counts (Xie et al. 2023).

    Args:
        class_counts: Training samples of each class (K,); a run fills it in.
        tau: Strength; 1 by default, 0 is plain cross-entropy.

    Raises:
        ValueError: If a class has no sample.

    Example:
        >>> LogitAdjusted([90, 10], tau=1.0)
        LogitAdjusted(tau=1.0)
    """

    shift: Tensor

    def __init__(self, class_counts: Tensor | Sequence[int], tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("shift", tau * log_prior(class_counts), persistent=False)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return nn.functional.cross_entropy(at_least_float32(outputs.logits) + self.shift, batch.labels)

    def extra_repr(self) -> str:
        """Show the strength in the loss's printout."""
        return f"tau={self.tau}"
