"""ViM (virtual-logit matching): the energy of the logits minus the norm of the feature outside the principal space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools._support.whitening import principal_directions
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.training_set import TrainingSet


class ViM(OODScore):
    """Score by the energy minus the scaled norm of the feature's residual: log(sum_k exp(z_k)) - a * ||R^T (h - u)||.

    R spans all directions but the first d principal ones of the training features about u, the point at which an
    affine head gives zero logits (u = -W^+ b; 0 without a bias), and a makes the mean residual of the training set as
    large as its mean largest logit. The residual shows samples outside the space of the training features, which the
    logits cannot show.

    Fits on training features and logits, and on weight and bias if the head has a bias. The labels are not read.

    Source: Wang, Li, Feng and Zhang (2022). The score orders samples as theirs does. The default d is theirs too: 1000
    for D >= 2048, 512 for D >= 768, else D / 2. OpenOOD uses 256.

    Args:
        dims: d, from 0 to D - 1, or None for the published choice.

    Raises:
        ValueError: If d is negative.

    Example:
        >>> x = torch.tensor([[4.0, 1.0], [-4.0, 1.0]])
        >>> vim = ViM(dims=1).fit(x, torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        >>> vim.score_samples(torch.tensor([[9.0, 0.0], [9.0, 3.0]]), torch.zeros(2, 2))  # log 2, log 2 - 2 x 3
        tensor([ 0.6931, -5.3069], dtype=torch.float64)
    """

    name = "vim"
    fits_on = ("features", "logits", "weight", "bias")

    def __init__(self, dims: int | None = None) -> None:
        if dims is not None and dims < 0:
            raise ValueError(f"dims is a number of directions and must not be negative, got {dims}")
        self.dims = dims

    def _fit(self, train: TrainingSet) -> None:
        width = train.features.shape[1]
        dims = default_dims(width) if self.dims is None else self.dims
        if dims >= width:
            raise UndefinedScoreError(
                f"ViM measures what lies outside the first dims directions, but dims={dims} leaves none of the "
                f"{width} directions: set dims to at most {width - 1}"
            )
        origin = torch.zeros_like(train.mean)
        if train.weight is not None and train.bias is not None:
            # Cross-entropy has no gradient along the sum of the class vectors, so after long training with weight decay
            # the sum is zero up to the rounding of float32, and the pseudo-inverse must not divide by it.
            rounding = max(train.weight.shape) * torch.finfo(torch.float32).eps
            origin = -torch.linalg.pinv(train.weight, rtol=rounding) @ train.bias
        shift = train.mean - origin
        vectors = principal_directions(train.total + torch.outer(shift, shift))[1]
        self._origin, self._outside = origin, vectors[:, dims:]
        residual = torch.cat([self._lengths(x) for x in train.blocks()]).mean()
        largest = train.logits.amax(dim=1).double().mean()
        scale = math.hypot(train.spread, float(shift.norm()))
        # A residual as small as the rounding of float32 is rounding of the features, whatever type they are stored in.
        if float(residual) <= torch.finfo(torch.float32).eps * scale or float(largest) <= 0:
            raise UndefinedScoreError(
                f"ViM scales the residual of the training features ({float(residual):.3g}) to their largest logit "
                f"({float(largest):.3g}), and both must be positive: set dims to a smaller number, or use another score"
            )
        self._scale = float(largest / residual)

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits, dim=1) - self._scale * self._lengths(features)

    def _lengths(self, features: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm((features - self._origin) @ self._outside, dim=1)
        return lengths


def default_dims(width: int) -> int:
    """Return the published number of principal directions for features of this width.

    Example:
        >>> default_dims(64), default_dims(768), default_dims(2048)
        (32, 512, 1000)
    """
    if width >= 2048:
        return 1000
    return 512 if width >= 768 else width // 2
