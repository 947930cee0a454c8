"""Learned heads: the linear layer and the cosine classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools._support.initial_tensors import check_memory
from nc_tools.heads.head import Head
from nc_tools.heads.normalize import normalize
from nc_tools.heads.projection import draw_linear
from nc_tools.heads.scale import LEARNED, LearnedScale, Scale


class LinearHead(Head):
    """The standard linear head and the baseline of every comparison: z_k = w_k . h + b_k, with w and b learned.

    Parameters, their names and their initialization are those of ``nn.Linear``: checkpoints of either load into the
    other.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        bias: Learn b.
        generator: Draws the initial weights; the global one if None.

    Example:
        >>> LinearHead(64, 10)(torch.zeros(2, 64)).shape
        torch.Size([2, 10])
    """

    weight: nn.Parameter
    scale = 1.0

    def __init__(
        self, feature_dim: int, num_classes: int, *, bias: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, feature_dim))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.draw_parameters(generator)

    def draw_parameters(self, generator: torch.Generator | None) -> None:
        """Draw weight and bias as ``nn.Linear`` does."""
        draw_linear(self.weight, self.bias, generator)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits (N, K) as ``nn.Linear`` does, without a multiplication by the scale, which is 1."""
        check_memory(self.weight, embedded, self)
        bias = None if self.bias is None else self.bias.to(embedded.dtype)
        return nn.functional.linear(embedded, self.weight.to(embedded.dtype), bias)


class CosineHead(Head):
    """Cosine classifier: z_k = s * cos(h, w_k), with learned directions w_k.

    It removes the norms of the class vectors, which encode the class prior on imbalanced data. With features and class
    vectors on spheres, all global minima of cross-entropy are ETFs (Yaras et al. 2022, theorem 3.1). Source: NormFace
    (Wang et al. 2017, eq. 6).

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        generator: Draws the initial weights; the global one if None.

    Example:
        >>> z = CosineHead(64, 10, scale=5.0)(torch.randn(2, 64))
        >>> bool((z.abs() <= 5.0).all())
        True
    """

    _dtype_source = "direction"
    bias = None

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float | LearnedScale | None = LEARNED,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.direction = nn.Parameter(torch.empty(num_classes, feature_dim))
        self.draw_parameters(generator)
        self.scale_of = Scale(scale, num_classes)

    def draw_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the directions as ``nn.Linear`` draws its weight."""
        draw_linear(self.direction, None, generator)

    @property
    def weight(self) -> Tensor:
        """Unit class vectors (K, D)."""
        return normalize(self.direction)

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The factor s of the cosines (1,)."""
        scale: Tensor = self.scale_of()
        return scale

    def embed(self, features: Tensor) -> Tensor:
        """Scale features to unit length."""
        return normalize(features)
