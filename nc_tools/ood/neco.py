"""How much of a feature lies in the space that the collapsed classes span."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError, length
from nc_tools.ood.whitening import principal

_SUM_ROUNDING = 128


class NECO(OODScore):
    """Share of a feature in the principal space of the training features: ||P h|| / ||h||, in [0, 1].

    Collapsed classes fill K - 1 directions about their common mean, and outliers tend to lie at right angles to them
    (NC5). h is standardized, feature by feature, with the training set's mean and deviation (a constant feature is
    centered only), and P holds the first d principal directions of that.

    Fits on training features; K is the number of classes that have samples, so on labels for that alone.

    Source: Ben Ammar et al. (2024, equation 6). The equation takes h as it is; standardizing is what the released code
    does and what its figures were made with. It multiplies by the largest logit, for some transformers only: multiply
    by :class:`MaxLogit` yourself. d was tuned per model with outliers in view; here it is K - 1, which collapse
    predicts, and nothing is tuned.

    Args:
        dims: d, from 1 to D - 1, or None for K - 1.

    Raises:
        ValueError: If d is below 1.

    Example:
        >>> x = torch.tensor([[3.0, 0.1], [3.0, -0.1], [-3.0, 0.1], [-3.0, -0.1]])
        >>> x = torch.cat([x, x + torch.tensor([[1.0, 0.1], [1.0, 0.1], [-1.0, -0.1], [-1.0, -0.1]])])
        >>> neco = NECO(dims=1).fit(x, torch.zeros(8, 2), torch.tensor([0, 0, 1, 1]).repeat(2))
        >>> inside, outside = neco.score(torch.tensor([[4.0, 0.2], [4.0, -0.2]]), torch.zeros(2, 2))
        >>> bool(inside > outside)
        True
    """

    name = "neco"
    fits_on = ("features", "labels")

    def __init__(self, dims: int | None = None) -> None:
        if dims is not None and dims < 1:
            raise ValueError(f"dims is a number of directions and must be at least 1, got {dims}")
        self.dims = dims

    def _fit(self, bank: Bank) -> None:
        width, number = bank.features.shape[1], len(bank.present)
        dims = number - 1 if self.dims is None else self.dims
        variances = bank.total.diagonal().clamp(min=0)
        # A feature whose deviation is the rounding of its sums is constant.
        rounding = _SUM_ROUNDING * torch.finfo(bank.features.dtype).eps * bank.mean.abs()
        deviation = torch.where(variances.sqrt() > rounding, variances.sqrt(), torch.ones_like(variances))
        if not 1 <= dims < width or float(variances.sum()) == 0:
            raise UndefinedScoreError(
                f"NECO compares the first dims directions with all {width} of features that vary, and dims={dims} of "
                f"{number} classes is not between 1 and {width - 1}, or the features are constant: give dims, or take "
                "another score"
            )
        vectors = principal(bank.total / torch.outer(deviation, deviation))[1]
        self._mean, self._inverse = bank.mean.to(bank.features), deviation.reciprocal().to(bank.features)
        self._principal = vectors[:, :dims].to(bank.features)
        self._floor = torch.finfo(bank.features.dtype).eps * width**0.5

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        x = (features - self._mean) * self._inverse
        inside: Tensor = torch.linalg.vector_norm(x @ self._principal, dim=1)
        return inside / length(x, self._floor)
