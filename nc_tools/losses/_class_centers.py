"""Moving averages of the class means."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.initial_tensors import InitialTensors
from nc_tools.losses._distributed import sum_over_processes


class ClassCenters(InitialTensors):
    """Class centers: exponential moving averages of the class means of batches.

    c_k <- m * c_k + (1 - m) * mean of the batch's features of class k.

    A class that is not in the batch keeps its center. A class that occurs for the first time takes the batch's mean. A
    class that has not occurred has no center. Gradients reach the features through the share of the batch in the
    centers: 1 - m, or 1 for a new class. The centers are stored in training mode only, and not under
    ``torch.no_grad()``; otherwise they are computed in the same way and not stored. With several processes the sums are
    over the batches of all, so that each holds the same state. Under ``torch.no_grad()`` each process sums its own
    batch only, so that one may evaluate alone.

    Args:
        num_classes: K.
        feature_dim: D.
        momentum: m, in [0, 1); 0 takes the centers from the batch alone.

    Raises:
        ValueError: If the momentum lies outside [0, 1).

    Example:
        >>> centers = ClassCenters(2, 1, momentum=0.5)
        >>> _ = centers(torch.tensor([[2.0]]), torch.tensor([0]))
        >>> means, initialized, _ = centers(torch.tensor([[4.0]]), torch.tensor([0]))
        >>> means[0].item(), initialized.tolist()
        (3.0, [True, False])
    """

    means: Tensor
    initialized: Tensor

    def __init__(self, num_classes: int, feature_dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(num_classes, feature_dim))
        self.register_buffer("initialized", torch.zeros(num_classes, dtype=torch.bool))

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return zeros: no class has a center."""
        return {name: torch.zeros(b.shape, dtype=b.dtype, device="cpu") for name, b in self.named_buffers()}

    def forward(self, features: Tensor, labels: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Update the class centers with the features of a batch, and return the centers.

        Args:
            features: (N, D).
            labels: Class indices (N,), int64.
            kept: Which samples count (N,), bool; None for all.

        Returns:
            The centers (K, D), this batch included; which classes have a center (K,), bool; and the number of samples
            of each class in this batch (K,).

        Raises:
            ValueError: If the features have another width than the centers.
        """
        if features.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"the loss was built for features of width {self.means.shape[1]}, got width {features.shape[1]}. Build "
                f"it with feature_dim={features.shape[1]}."
            )
        num_classes = len(self.means)
        ones = features.new_ones(len(labels)) if kept is None else kept.to(features.dtype)
        if kept is not None:
            features = torch.where(kept[:, None], features, 0)
        sums = sum_over_processes(features.new_zeros(num_classes, features.shape[1]).index_add(0, labels, features))
        counts = sum_over_processes(features.new_zeros(num_classes).index_add(0, labels, ones))
        present = counts > 0
        share = (1 - self.momentum * self.initialized.to(features.dtype)) * present
        previous = self.means.to(features.dtype)
        centers = previous + share[:, None] * (sums / counts.clamp(min=1)[:, None] - previous)
        initialized = self.initialized | present
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.means.copy_(centers)
                self.initialized.copy_(initialized)
        return centers, initialized, counts

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"num_classes={len(self.means)}, feature_dim={self.means.shape[1]}, momentum={self.momentum}"
