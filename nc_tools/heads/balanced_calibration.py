"""A learned and a fixed head side by side, mixed so that confidence matches accuracy."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from nc_tools._support.precision import autocast_off
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.head import Head
from nc_tools.heads.linear import LinearHead
from nc_tools.heads.scale import LearnedScale

_BISECTIONS = 20
# The logit of a share of 0 or 1 would be infinite.
_ENDS = (1e-6, 1 - 1e-6)


class BalancedCalibrationHead(Head):
    """A linear head and a fixed ETF head on the same features, mixed: z = a (W h + b) + (1 - a) s M u.

    The linear head is free to grow its norm and with it its confidence; the ETF head on unit features u is not: no
    score of it exceeds s. Their mixture sits between, and :meth:`balance` places it where the mean confidence on data
    of your choice equals the accuracy there. Unlike a temperature, a may change which class wins.

    As both parts are affine in (h, u), so is the mixture, and it is one head: ``embed`` gives [h, u], ``weight`` is
    [a W, (1 - a) s M], ``bias`` is a b.

    Source: Ni et al. (2025, BalCAL, "Balancing two classifiers via a simplex ETF structure for model calibration").
    They put a block of layers before the ETF, train each part with a loss of its own, the ETF's norms scaled by the
    class counts of the batch, and find a after each epoch by bisection on *training* samples. Here an optional linear
    map stands before the ETF, one loss of the mixture trains both, no batch decides a norm, and a is given, learned by
    that loss, or found by the same bisection on samples that you hold out, as a temperature is: on training samples
    confidence and accuracy agree by memorizing.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        mix: a, share of the linear head, strictly between 0 and 1; ``LEARNED`` trains it (from .8, or from
            ``LearnedScale(initial)``), as the sigmoid of a 0-dimensional parameter that no optimizer group here decays.
        scale: s of the ETF head: a positive number, ``LEARNED``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the ETF: True to K dimensions, or a number of dimensions >= K - 1.
        frame_seed: Draws the ETF's rotation.
        generator: Draws the initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the ETF is below K - 1, ``mix`` is outside (0, 1), or the scale is not
            positive.

    Example:
        >>> head = BalancedCalibrationHead(64, 10, mix=0.5, generator=torch.Generator().manual_seed(0))
        >>> features, labels = torch.randn(200, 64), torch.arange(200) % 10
        >>> 0 < head.balance(features, labels) < 1
        True
    """

    scale = 1.0

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        mix: float | LearnedScale = 0.8,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        initial = (0.8 if mix.initial is None else mix.initial) if isinstance(mix, LearnedScale) else mix
        if not 0 < initial < 1:
            raise ValueError(f"mix must lie strictly between 0 and 1, got {initial}: for one head alone take that head")
        self.linear = LinearHead(feature_dim, num_classes, generator=generator)
        self.etf = ETFHead(
            feature_dim, num_classes, scale=scale, projection=projection, frame_seed=frame_seed, generator=generator
        )
        # Kept as its logit whether learned or given: one meaning in every checkpoint.
        raw = torch.tensor(initial).logit()
        if isinstance(mix, LearnedScale):
            self.raw_mix: Tensor = nn.Parameter(raw)
        else:
            self.register_buffer("raw_mix", raw)

    @property
    def mix(self) -> Tensor:
        """The share a of the linear head, a scalar tensor."""
        return self.raw_mix.sigmoid()

    @property
    def weight(self) -> Tensor:
        """[a W, (1 - a) s M], (K, D + D')."""
        share = self.mix
        return torch.cat([share * self.linear.weight, (1 - share) * self.etf.scale * self.etf.weight], dim=1)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The linear head's bias, a b (K,)."""
        return self.mix * cast(Tensor, self.linear.bias)

    def embed(self, features: Tensor) -> Tensor:
        """Return [h, u]: the features beside the ETF head's unit features (N, D + D')."""
        return torch.cat([features, self.etf.embed(features)], dim=-1)

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the linear and of the ETF head, each (N, K): for a loss on each, as published."""
        return self.linear(features), self.etf(features)

    @torch.no_grad()
    def balance(self, features: Tensor, labels: Tensor) -> float:
        """Set a, by bisection, so that mean confidence equals accuracy on these samples, and return it.

        Give it samples that were not trained on. Where both parts are too sure, or both too timid, a goes to the one
        that is nearer the truth. Waits for the device.

        Args:
            features: (N, D), of the model in eval mode.
            labels: (N,), int64.

        Raises:
            ValueError: If there is no sample.
        """
        if len(labels) == 0:
            raise ValueError("balance needs at least one sample, got none: give it a hold-out")
        with autocast_off(features.device.type):
            linear, etf = self.parts(features)
            share = _balanced_share(linear, etf, labels)
        self.raw_mix.fill_(math.log(share / (1 - share)))
        return share


def _balanced_share(linear: Tensor, etf: Tensor, labels: Tensor) -> float:
    first, last = (_gap(share, linear, etf, labels) for share in _ENDS)
    if (first > 0) == (last > 0):
        return _ENDS[abs(last) < abs(first)]
    # Which part is the surer one depends on the weights.
    timid, sure = _ENDS if last > 0 else _ENDS[::-1]
    for _ in range(_BISECTIONS):
        middle = (timid + sure) / 2
        if _gap(middle, linear, etf, labels) > 0:
            sure = middle
        else:
            timid = middle
    return (timid + sure) / 2


def _gap(share: float, linear: Tensor, etf: Tensor, labels: Tensor) -> float:
    """Return mean confidence minus accuracy of the mixture."""
    probabilities = (share * linear + (1 - share) * etf).softmax(dim=1)
    confidence, winner = probabilities.max(dim=1)
    return float(confidence.mean() - (winner == labels).to(confidence.dtype).mean())
