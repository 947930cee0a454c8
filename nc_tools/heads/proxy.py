"""A cosine classifier with several class vectors per class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.heads.normalize import normalize
from nc_tools.heads.projection import draw_linear
from nc_tools.heads.scale import LEARNED, LearnedScale, Scale


class ProxyHead(Head):
    """Cosine classifier with several proxies per class: z_k = s * max_m cos(h, w_km).

    Use it for classes that consist of several clusters: features that have not collapsed, coarse labels, or a frozen
    backbone that was not trained on these classes. Built by :func:`~nc_tools.heads.imprint` it is a few-shot classifier
    without training; its proxies are parameters, so it can then be fine-tuned. Westerhoff et al. (2025) aggregate by
    this maximum or by a vote of the nearest proxies; SoftTriple (Qian et al. 2019) uses a softmax instead.

    The head is not affine. ``weight``, which losses and measures read, is the direction of the mean of a class's
    proxies.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        num_proxies: m, the proxies per class, at least 1; with 1 the logits are those of a ``CosineHead``.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        generator: Draws the initial proxies; the global one if None.

    Raises:
        ValueError: If K < 2, D < 1, m < 1 or the scale is not positive.

    Example:
        >>> head = ProxyHead(64, 10, num_proxies=3)
        >>> head.proxies.shape, head(torch.zeros(2, 64)).shape
        (torch.Size([10, 3, 64]), torch.Size([2, 10]))
    """

    affine = False
    _dtype_source = "proxies"
    bias = None

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        num_proxies: int = 4,
        scale: float | LearnedScale | None = LEARNED,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        if num_proxies < 1:
            raise ValueError(f"ProxyHead needs at least 1 proxy per class, got num_proxies={num_proxies}")
        self.num_proxies = num_proxies
        self.proxies = nn.Parameter(torch.empty(num_classes, num_proxies, feature_dim))
        self.draw_parameters(generator)
        self.scale_of = Scale(scale, num_classes)

    def draw_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the proxies as ``nn.Linear`` draws its weight."""
        draw_linear(self.proxies.data.flatten(0, 1), None, generator)

    @property
    def weight(self) -> Tensor:
        """Unit class vectors (K, D): the direction of the mean of each class's unit proxies."""
        return normalize(normalize(self.proxies).mean(1))

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The factor s of the cosines (1,)."""
        scale: Tensor = self.scale_of()
        return scale

    def embed(self, features: Tensor) -> Tensor:
        """Scale features to unit length."""
        return normalize(features)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits (N, K): for each class, the scaled cosine of a feature with the nearest proxy."""
        rows = normalize(self.proxies).flatten(0, 1).to(embedded.dtype)
        cosines = nn.functional.linear(embedded, rows)
        return self.scale * cosines.view(*cosines.shape[:-1], self.num_classes, self.num_proxies).amax(-1)

    def extra_repr(self) -> str:
        """Return the sizes for ``print(model)``."""
        return f"{super().extra_repr()}, num_proxies={self.num_proxies}"
