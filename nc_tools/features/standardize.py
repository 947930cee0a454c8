"""Standardization of features: every dimension gets mean zero and variance one over the training samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools.features.feature_set import FeatureSet

_ROWS = 8192  # read at a time, so that a large memory-mapped file is never in memory as a whole
_LEAST_SPREAD = 1e-3


class Standardize(nn.Module):
    """Shift and scale each dimension of features: (h - mean) / spread.

    Pretrained features differ in scale from network to network and from dimension to dimension. Without this step, a
    learning rate that suits one head and network suits no other; with it, one grid of rates serves linear and
    normalizing heads. It is part of the model: its values are saved with the weights.

    Args:
        mean: Mean of each dimension (D,).
        spread: Standard deviation of each dimension (D,), positive.

    Example:
        >>> Standardize(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))(torch.tensor([[2.0, 6.0]]))
        tensor([[1., 1.]])
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    @torch.no_grad()
    def copy_from(self, other: Standardize) -> None:
        """Copy the mean and the spread of another ``Standardize``."""
        self.mean.copy_(other.mean)
        self.spread.copy_(other.spread)

    def forward(self, features: Tensor) -> Tensor:
        """Return standardized features (N, D)."""
        return (features - self.mean) / self.spread

    def extra_repr(self) -> str:
        """Return the width for ``print(model)``."""
        return f"{len(self.mean)}"


def fit_standardize(features: FeatureSet, indices: Tensor) -> Standardize:
    """Return the standardization by the mean and spread of the training samples, those at ``indices`` (M,).

    The spread of a dimension is its standard deviation, but at least a thousandth of the mean over all dimensions, so
    that a dimension that is almost constant in training does not become the largest one on other samples. If all
    dimensions are constant, it is 1.

    Example:
        >>> part = FeatureSet(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), torch.tensor([0, 1]), ("a", "b"), "two")
        >>> fit_standardize(part, torch.arange(2))(part.take(torch.arange(2))).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    width = features.shape[0]
    total, squares = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for part in torch.split(indices, _ROWS):
        total += features.take(part).double().sum(0)
    mean = total / len(indices)
    for part in torch.split(indices, _ROWS):
        squares += (features.take(part).double() - mean).square().sum(0)
    deviation = (squares / len(indices)).sqrt()
    least = _LEAST_SPREAD * float(deviation.mean())
    spread = deviation.clamp(min=least) if least > 0 else torch.ones(width, dtype=torch.float64)
    return Standardize(mean.float(), spread.float())
