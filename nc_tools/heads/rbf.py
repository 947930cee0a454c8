"""Gaussian bumps on simplex-ETF centers, with a background that takes over far from all of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.scale import Scale, default_scale


class RBFHead(ETFHead):
    """Radial-basis head on fixed ETF centers r m_k: confident near a center only, bounded everywhere else.

    A linear head grows surer the farther a feature lies. Here a constant background competes with the classes,

        p_k = exp(-gamma ||h - r m_k||^2) / (exp(beta) + sum_j exp(-gamma ||h - r m_j||^2)),

    so that p_k <= exp(-gamma (||h|| - r)^2 - beta) for every class: far from the centers all of them go to 0.

    The background is the point. Without it the softmax is *identical* to a linear head of weight 2 gamma r m_k: the
    terms ||h||^2 and r^2 are the same for all classes and cancel. Nothing of shape (N, K) can carry it through a
    softmax over K, which always sums to 1. So the logits are log-odds of each class against the background,

        z_k = -gamma ||h - r m_k||^2 - beta,    the background's own being 0,

    and it depends on the loss whether it counts:

    - ``cross_entropy(head.with_background(logits), labels)`` trains the softmax above; in the training loop that is
      :class:`~nc_tools.losses.BackgroundCrossEntropyLoss`.
    - a binary cross-entropy on the logits themselves: each class against the background, sigmoid(z_k).
    - plain ``cross_entropy(logits, labels)`` sees the linear head; the far field is then not trained, only bounded.

    ``logits.logsumexp(1)`` is the log-odds of being known: higher for what looks like the training data.

    Source: radial-basis heads for out-of-distribution detection as in Khanna et al. (2025, "Multi-layer radial basis
    function networks"), who learn centers and widths and train with a binary cross-entropy; here centers are the
    vertices of one fixed ETF and width, radius and background are given. Features are not normalized: on a sphere
    nothing is far.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        gamma: Inverse squared width of the bumps, positive. None puts .999 of the mass among the *classes* on the own
            one at its center: 2 gamma r^2 is :func:`~nc_tools.heads.default_scale`.
        radius: r, distance of the centers from the origin, positive. None takes sqrt(D'), the length of a feature
            whose coordinates are about 1.
        background: beta. None takes -gamma r^2: at the origin, at distance r from every center, background and classes
            are equally likely.
        projection: Learn a linear map before the frame: True to K dimensions, or a number of dimensions >= K - 1.
        frame_seed: Draws the Haar rotation of the centers.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is below K - 1, gamma or the radius is not positive, or the
            background is not finite.

    Example:
        >>> head = RBFHead(4, 3, radius=2.0)
        >>> near, far = 2 * head.weight[:1], 20 * head.weight[:1]
        >>> logits = head(torch.cat([near, far]))
        >>> head.with_background(logits).argmax(dim=1).tolist()    # 3 is the background
        [0, 3]
    """

    geometry = "simplex ETF of centers"
    affine = False

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        gamma: float | None = None,
        radius: float | None = None,
        background: float | None = None,
        projection: bool | int = False,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            feature_dim, num_classes, projection=projection, normalize=False, frame_seed=frame_seed,
            generator=generator,
        )  # fmt: skip
        self.radius = math.sqrt(self.frame.shape[1]) if radius is None else radius
        _check_positive("radius", self.radius)
        self.gamma = default_scale(num_classes) / (2 * self.radius**2) if gamma is None else gamma
        _check_positive("gamma", self.gamma)
        self.background = -self.gamma * self.radius**2 if background is None else background
        if not math.isfinite(self.background):
            raise ValueError(f"background must be a finite logit, got {background}: leave it out for -gamma r^2")
        # What multiplies the product with the class vectors, as in the linear head that plain cross-entropy sees.
        self.scale_of = Scale(2 * self.gamma * self.radius, num_classes)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return log-odds against the background (N, K)."""
        # Multiplied out, with r^2 and beta joined first: they are large and, by default, cancel.
        product = nn.functional.linear(embedded, self.weight.to(embedded.dtype))
        square = embedded.square().sum(dim=-1, keepdim=True)
        return self.scale * product - self.gamma * square - (self.gamma * self.radius**2 + self.background)

    @staticmethod
    def with_background(logits: Tensor) -> Tensor:
        """Append the background's logit, which is 0: (N, K) to (N, K + 1), a softmax over which is p."""
        return nn.functional.pad(logits, (0, 1))

    def extra_repr(self) -> str:
        """Show the bumps in the model's printout."""
        shown = f"gamma={self.gamma:.4g}, radius={self.radius:.4g}, background={self.background:.4g}"
        return f"{super().extra_repr()}, {shown}"


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}: leave it out for the default")
