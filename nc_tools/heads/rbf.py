"""A radial-basis-function head: Gaussians around simplex-ETF centers, and a background class far from all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.scale import Scale, default_scale


class RBFHead(ETFHead):
    """Radial-basis head with one fixed center per class, on a simplex ETF: confident only near a center.

    The center of class k is r m_k, m_k an ETF vertex.

    A linear head becomes more confident the longer a feature is. Here a constant background competes with the classes,

        p_k = exp(-gamma ||h - r m_k||^2) / (exp(beta) + sum_j exp(-gamma ||h - r m_j||^2)),

    so p_k <= exp(-gamma (||h|| - r)^2 - beta) for every class: far from the centers all p_k go to 0.

    The background is essential. Without it the softmax is *identical* to that of a linear head with the weight
    2 gamma r m_k, because the terms ||h||^2 and r^2 are the same for all classes and cancel. A softmax over K logits
    always sums to 1, so it cannot express the background. Therefore the logits are log-odds of each class against the
    background,

        z_k = -gamma ||h - r m_k||^2 - beta,    with 0 for the background,

    and the loss decides whether the background is used:

    - ``cross_entropy(head.with_background(logits), labels)`` trains the softmax above; in the training loop use
      :class:`~nc_tools.losses.BackgroundCrossEntropyLoss`.
    - a binary cross-entropy on the logits: each class against the background, sigmoid(z_k).
    - plain ``cross_entropy(logits, labels)`` is that of the linear head: probabilities far from the centers are
      bounded, but not trained.

    ``logits.logsumexp(1)`` is the log-odds of any class against the background: higher for inputs that resemble the
    training data.

    Source: radial-basis heads for out-of-distribution detection as in Khanna et al. (2025, "Multi-layer radial basis
    function networks"). They learn centers and widths and train with a binary cross-entropy; here the centers are the
    vertices of a fixed ETF, and width, radius and background are arguments. Features are not normalized, because no
    point of a sphere is far from the centers.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        gamma: Inverse squared width of the Gaussians, positive. With None a feature at its center has the probability
            .999 among the *classes*: 2 gamma r^2 is :func:`~nc_tools.heads.default_scale`.
        radius: r, the distance of the centers from the origin, positive. None takes sqrt(D'), the length of a feature
            whose coordinates are about 1.
        background: beta. None takes -gamma r^2: at the origin, which has the distance r to every center, background and
            classes are equally likely.
        projection: Learn a linear map before the frame: True (to K dimensions) or the number of dimensions, >= K - 1.
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
    radius: Tensor
    background: Tensor

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
        radius = math.sqrt(self.width) if radius is None else float(radius)
        _check_positive("radius", radius)
        gamma = default_scale(num_classes) / (2 * radius**2) if gamma is None else float(gamma)
        _check_positive("gamma", gamma)
        background = -gamma * radius**2 if background is None else float(background)
        if not math.isfinite(background):
            raise ValueError(f"background must be finite, got {background}: omit it to use the default, -gamma r^2")
        # The factor of the product with the class vectors, as in the linear head that has the same softmax.
        self.scale_of = Scale(2 * gamma * radius, num_classes)
        self._numbers = {"radius": radius, "background": background}
        for name, number in self._numbers.items():
            self.register_buffer(name, torch.full((1,), number))

    @property
    def gamma(self) -> Tensor:
        """The inverse squared width of the Gaussians (1,)."""
        return self.scale / (2 * self.radius)

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the vertices that ``frame_seed`` draws, and radius and background that the head was built with."""
        numbers = {name: torch.full((1,), number, device="cpu") for name, number in self._numbers.items()}
        return super().initial_buffers() | numbers

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the log-odds (N, K) of each class against the background class."""
        # The square is expanded. gamma r^2 and beta are added first: they are large, and cancel by default.
        product = nn.functional.linear(embedded, self.class_vectors().to(embedded.dtype))
        square = embedded.square().sum(dim=-1, keepdim=True)
        scale = self.scale
        gamma = scale / (2 * self.radius)
        return scale * product - gamma * square - (gamma * self.radius**2 + self.background)

    @staticmethod
    def with_background(logits: Tensor) -> Tensor:
        """Append the background class's logit, 0, to logits (N, K), for a softmax over K + 1 classes."""
        return nn.functional.pad(logits, (0, 1))

    def extra_repr(self) -> str:
        """Return the settings for ``print(model)``."""
        if self.radius.is_meta:
            return super().extra_repr()
        numbers = (("gamma", self.gamma), ("radius", self.radius), ("background", self.background))
        return ", ".join([super().extra_repr(), *(f"{name}={float(number):.4g}" for name, number in numbers)])

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the tensors of a checkpoint of version 0.2, which had no radius and background."""
        return state | {name: getattr(self, name) for name in self._numbers}


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}: omit it to use the default")
