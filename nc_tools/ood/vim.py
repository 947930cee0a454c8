"""Virtual-logit matching: what the logits say, less what the features do outside their principal space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.whitening import principal


class ViM(OODScore):
    """Energy less the scaled length of the feature's residual: log sum_k exp(z_k) - a ||R^T (h - u)||.

    R spans the directions behind the first d principal ones of the training features about u, the point at which an
    affine head gives zero logits (u = -W^+ b; 0 without a bias), and a makes the mean residual of the training set as
    large as its mean largest logit. Sees what leaves the training features' space, which the logits cannot.

    Fits on training features and logits, and on weight and bias where the head has a bias. The labels are not read.

    Source: Wang, Li, Feng and Zhang (2022). The order of scores is theirs; d is theirs too: 1000 from D = 2048 on, 512
    from 768 on, else D / 2. OpenOOD uses 256.

    Args:
        dims: d, from 0 to D - 1, or None for the above.

    Raises:
        ValueError: If d is negative.

    Example:
        >>> x = torch.tensor([[4.0, 1.0], [-4.0, 1.0]])
        >>> vim = ViM(dims=1).fit(x, torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
        >>> vim.score(torch.tensor([[9.0, 0.0], [9.0, 3.0]]), torch.zeros(2, 2))  # log 2, log 2 - 2 x 3
        tensor([ 0.6931, -5.3069])
    """

    name = "vim"
    fits_on = ("features", "logits", "weight", "bias")

    def __init__(self, dims: int | None = None) -> None:
        if dims is not None and dims < 0:
            raise ValueError(f"dims is a number of directions and must not be negative, got {dims}")
        self.dims = dims

    def _fit(self, bank: Bank) -> None:
        width = bank.features.shape[1]
        dims = default_dims(width) if self.dims is None else self.dims
        if dims >= width:
            raise UndefinedScoreError(
                f"ViM measures what lies outside the first dims directions, and of {width} features dims={dims} leaves "
                f"none: give at most dims={width - 1}"
            )
        origin = torch.zeros_like(bank.mean)
        if bank.weight is not None and bank.bias is not None:
            # Cross-entropy moves the sum of the class vectors by weight decay alone, so that after long training it is
            # zero up to the rounding of the float32 that it was trained in: not a direction to divide by.
            rounding = max(bank.weight.shape) * torch.finfo(torch.float32).eps
            origin = -torch.linalg.pinv(bank.weight.double(), rtol=rounding) @ bank.bias.double()
        shift = bank.mean - origin
        vectors = principal(bank.total + torch.outer(shift, shift))[1]
        self._origin = origin.to(bank.features)
        self._residual = vectors[:, dims:].to(bank.features)
        lengths = torch.cat([self._lengths(x) for x in torch.split(bank.features, 8192)])
        length = lengths.double().mean()
        largest = bank.logits.amax(dim=1).double().mean()
        size = math.hypot(bank.reach, float(shift.norm()))
        if float(length) <= torch.finfo(bank.features.dtype).eps * size or float(largest) <= 0:
            raise UndefinedScoreError(
                f"ViM scales the residual of the training features ({float(length):.3g}) to their largest logit "
                f"({float(largest):.3g}), and both must be positive: give fewer dims, or take another score"
            )
        self._scale = float(largest / length)

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits, dim=1) - self._scale * self._lengths(features)

    def _lengths(self, features: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm((features - self._origin) @ self._residual, dim=1)
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
