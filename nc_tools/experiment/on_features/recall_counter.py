"""Accuracy, balanced accuracy and loss of many heads at once, a few samples at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.losses import affine_cross_entropy


class RecallCounter:
    """Counts the right predictions of many heads, each on labels of its own.

    Args:
        members: Number of heads, M.
        num_classes: K.
        device: Device of the logits.

    Example:
        >>> counter = RecallCounter(1, 2)
        >>> counter.add(torch.tensor([[[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]]), torch.tensor([[0, 0, 1]]))
        >>> counter.metrics()[0]["holdout/gen/balanced_accuracy"]
        0.5
    """

    def __init__(self, members: int, num_classes: int, device: torch.device | str = "cpu") -> None:
        self._right = torch.zeros(members, num_classes, dtype=torch.float64, device=device)
        self._counts = torch.zeros_like(self._right)
        self._loss = torch.zeros(members, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add the logits (M, N, K) of some samples, with the labels (M, N) of each head's samples."""
        hits = logits.argmax(2) == labels
        self._right.scatter_add_(1, labels, hits.double())
        self._counts.scatter_add_(1, labels, torch.ones_like(hits, dtype=torch.float64))
        nll = affine_cross_entropy(logits.flatten(0, 1), labels.flatten())
        self._loss += nll.view(labels.shape).double().sum(1)

    def metrics(self) -> list[dict[str, float]]:
        """Return accuracy, balanced accuracy and negative log-likelihood of each head on the hold-out."""
        totals = self._counts.sum(1)
        recall = (self._right / self._counts.clamp(min=1)).sum(1) / (self._counts > 0).sum(1)
        columns = zip(
            (self._right.sum(1) / totals).tolist(), recall.tolist(), (self._loss / totals).tolist(), strict=True
        )
        return [
            {"holdout/gen/accuracy": a, "holdout/gen/balanced_accuracy": b, "holdout/cal/nll": n} for a, b, n in columns
        ]
