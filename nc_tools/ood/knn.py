"""KNN: the distance to the k-th nearest training sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nc_tools.ood.ood_score import OODScore
from nc_tools.ood.training_set import TrainingSet


class KNN(OODScore):
    """Score by minus the distance to the k-th nearest training feature, with all features scaled to unit length.

    It assumes nothing about the shape of the classes and needs no head. With fewer than k training samples the farthest
    one is taken. A feature of length 0 stays 0. Neighbors are found by inner products in float64. The distance to the
    k-th neighbor is computed from the difference of the two vectors, so that nearly equal (collapsed) features keep
    their order.

    Fits on the training features, without labels. Costs O(N D) per sample.

    Source: Sun, Ming, Zhu and Li (2022), k = 50 for CIFAR-10; the released code returns the squared distance, which
    gives the same ranks.

    Args:
        k: Which neighbor; 1 for the nearest.

    Raises:
        ValueError: If k is below 1.

    Example:
        >>> knn = KNN(k=1).fit(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> knn.score_samples(torch.tensor([[3.0, 0.0], [-2.0, 0.0]]), torch.zeros(2, 2))
        tensor([-0.0000, -1.4142], dtype=torch.float64)
    """

    name = "knn"
    fits_on = ("features",)
    reads_features_alone = True

    def __init__(self, k: int = 50) -> None:
        if k < 1:
            raise ValueError(f"k is the number of neighbors and must be at least 1, got {k}")
        self.k = k

    def _fit(self, train: TrainingSet) -> None:
        self._unit = torch.cat([F.normalize(x, dim=1) for x in train.blocks()])

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        unit = F.normalize(features, dim=1)
        nearest = (unit @ self._unit.T).topk(min(self.k, len(self._unit)), dim=1)
        # Products order the neighbors. The distance is computed from the difference, which loses fewer digits.
        distances: Tensor = torch.linalg.vector_norm(unit - self._unit[nearest.indices[:, -1]], dim=1)
        return -distances

    def _values_per_sample(self) -> int:
        return len(self._unit)
