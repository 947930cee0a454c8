"""fDBD: the distance to the decision boundaries relative to the distance to the training mean."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.ood.nci import distance_floor
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError, norms_at_least, require_weight
from nc_tools.ood.training_set import TrainingSet


class FDBD(OODScore):
    """Score by the mean distance to the decision boundaries, divided by the distance to the training mean.

        1/(K - 1) sum_{j != y} |z_y - z_j| / ||w_y - w_j||  /  ||h - mu||,    y = argmax_k z_k.

    A sample that is far from every boundary, compared with its distance to the mean, is in-distribution. For an affine
    head |z_y - z_j| / ||w_y - w_j|| is exactly the distance to the hyperplane z_y = z_j. Two classes with equal class
    vectors have no boundary and add 0.

    Fits on the training features, for their mean, and on the weight.

    Source: Liu and Qin (2024, fast decision boundary detector). OpenOOD's copy sums instead of averaging, which gives
    the same ranks, may divide by ||h|| instead, and fails on a head without a bias.

    Example:
        >>> fdbd = FDBD().fit(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.eye(2), torch.tensor([0, 1]),
        ...                   weight=torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
        >>> fdbd.score_samples(torch.tensor([[3.0, 0.0], [3.0, 4.0]]), torch.tensor([[-6.0, 6.0], [-6.0, 6.0]]))
        tensor([1.0000, 0.6000], dtype=torch.float64)
    """

    name = "fdbd"
    fits_on = ("features", "weight")

    def _fit(self, train: TrainingSet) -> None:
        weight = require_weight(train, "fDBD")
        if len(weight) < 2:
            raise UndefinedScoreError(
                "fDBD measures distances to boundaries between classes and needs two classes, got one"
            )
        # Differences do not depend on the origin. About the mean, the products below lose the fewest digits.
        self._weight = weight - weight.mean(dim=0)
        self._squares = self._weight.square().sum(dim=1)
        self._mean = train.mean
        self._floor = distance_floor(train)

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:
        largest, decision = logits.max(dim=1, keepdim=True)
        classes, place = torch.unique(decision.flatten(), return_inverse=True)
        to_boundaries = ((largest - logits) * self._inverse_gaps(classes)[place]).sum(dim=1)
        return to_boundaries / (logits.shape[1] - 1) / norms_at_least(features - self._mean, self._floor)

    def _inverse_gaps(self, classes: Tensor) -> Tensor:
        """Return 1 / ||w_y - w_j|| for y in ``classes`` and every j (len(classes), K), 0 where the two are equal."""
        products = self._weight[classes] @ self._weight.T
        squares = self._squares[classes, None] + self._squares - 2 * products
        kept = squares > torch.finfo(torch.float64).eps * 16 * self._squares.amax()
        return torch.where(kept, squares, torch.ones_like(squares)).rsqrt() * kept
