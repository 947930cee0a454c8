"""Moving averages of the class means, which several losses keep."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def process_count() -> int:
    """Return how many processes train together; 1 where none but this one does."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up a tensor over all processes, for the gradient too; itself where there is one process."""
    if process_count() == 1:
        return values
    total: Tensor = _SumOverProcesses.apply(values)
    return total


class _SumOverProcesses(torch.autograd.Function):
    """The gradient of a sum over processes is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        total = grad.clone()
        dist.all_reduce(total)
        return total


class ClassCenters(nn.Module):
    """Class means as exponential moving averages: c_k <- m c_k + (1 - m) mean of the batch's features of class k.

    A class that is not in the batch keeps its center, one met for the first time takes the batch's mean, and one never
    met has none. Gradients reach the features through the batch's share, 1 - m, of its class's center. State moves in
    training mode only; in eval mode the same centers are computed and not kept. In several processes the sums are those
    of all of them, so that state stays the same in each.

    Args:
        num_classes: K.
        feature_dim: D.
        momentum: m, in [0, 1); 0 takes the centers from the batch alone.

    Raises:
        ValueError: If the momentum lies outside [0, 1).

    Example:
        >>> centers = ClassCenters(2, 1, momentum=0.5)
        >>> _ = centers(torch.tensor([[2.0]]), torch.tensor([0]))
        >>> found, known, _ = centers(torch.tensor([[4.0]]), torch.tensor([0]))
        >>> found[0].item(), known.tolist()
        (3.0, [True, False])
    """

    means: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, feature_dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}: 1 would never move a center")
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(num_classes, feature_dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take in a batch.

        Args:
            features: (N, D).
            labels: (N,), int64.

        Returns:
            Centers (K, D), with the batch's share in them; which classes have one (K,), bool; the samples of each class
            in this batch (K,).

        Raises:
            ValueError: If the features have another width than the centers.
        """
        if features.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"class centers of width {self.means.shape[1]} met features of width {features.shape[1]}: build the "
                f"loss with feature_dim={features.shape[1]}"
            )
        count = len(self.means)
        sums = sum_over_processes(features.new_zeros(count, features.shape[1]).index_add(0, labels, features))
        counts = sum_over_processes(features.new_zeros(count).index_add(0, labels, features.new_ones(len(labels))))
        present = counts > 0
        share = (1 - self.momentum * self.seen.to(features.dtype)) * present
        kept = self.means.to(features.dtype)
        centers = kept + share[:, None] * (sums / counts.clamp(min=1)[:, None] - kept)
        known = self.seen | present
        if self.training:
            with torch.no_grad():
                self.means.copy_(centers)
                self.seen.copy_(known)
        return centers, known, counts

    def extra_repr(self) -> str:
        """Show the sizes in a loss's printout."""
        return f"num_classes={len(self.means)}, feature_dim={self.means.shape[1]}, momentum={self.momentum}"
