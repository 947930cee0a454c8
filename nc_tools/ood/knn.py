"""Distance to the k-th nearest training sample."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore


class KNN(OODScore):
    """Minus the distance to the k-th nearest training feature, all at unit length: -||u - u_(k)||.

    Assumes no shape of the classes and needs no head. With fewer than k training samples the farthest one counts. A
    feature of length 0 stays 0. Distances come from products: below 3e-4 they are rounding in float32, which features
    that have collapsed that far need not suffer (give float64).

    Fits on the training features, without labels. O(N D) a sample.

    Source: Sun, Ming, Zhu and Li (2022), k = 50 for CIFAR-10; the released code returns the squared distance, which
    ranks alike.

    Args:
        k: Which neighbor.

    Raises:
        ValueError: If k is below 1.

    Example:
        >>> import torch
        >>> knn = KNN(k=1).fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> knn.score(torch.tensor([[3.0, 0.0], [-2.0, 0.0]]), torch.zeros(2, 2))
        tensor([-0.0000, -1.4142])
    """

    name = "knn"
    fits_on = ("features",)

    def __init__(self, k: int = 50) -> None:
        if k < 1:
            raise ValueError(f"k counts neighbors and must be at least 1, got {k}")
        self.k = k

    def _fit(self, bank: Bank) -> None:
        self._unit = F.normalize(bank.features, dim=1)

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        cosine = F.normalize(features, dim=1) @ self._unit.T
        kth = cosine.topk(min(self.k, len(self._unit)), dim=1, sorted=False).values.amin(dim=1)
        return -(2 - 2 * kth).clamp(min=0).sqrt()

    def _columns(self) -> int:
        return len(self._unit)
