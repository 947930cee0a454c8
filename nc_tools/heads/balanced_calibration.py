"""A linear head and a fixed ETF head, mixed so that confidence matches accuracy."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from nc_tools._support.precision import autocast_off
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.head import Head
from nc_tools.heads.linear import LinearHead
from nc_tools.heads.scale import LearnedScale

_BISECTIONS = 20
# Range of the share: the logit of 0 or 1 would be infinite.
_ENDS = (1e-6, 1 - 1e-6)


class BalancedCalibrationHead(Head):
    """A linear head and a fixed ETF head on the same features, mixed: z = a * (W h + b) + (1 - a) * s * M u.

    The linear head can grow its norm, and with it its confidence. The ETF head on unit features u cannot: its scores
    never exceed s. The mixture lies between them, and :meth:`balance` chooses a so that on held-out data the mean
    confidence equals the accuracy. Unlike a temperature, a can change the predicted class.

    Both parts are affine in (h, u), so the mixture is one affine head: ``embed`` returns [h, u], ``weight`` is
    [a W, (1 - a) s M], ``bias`` is a b.

    Source: Ni et al. (2025, BalCAL, "Balancing two classifiers via a simplex ETF structure for model calibration").
    They put a block of layers before the ETF, train each part with its own loss, scale the ETF's norms by the class
    counts of the batch, and find a after each epoch by bisection on *training* samples. Here an optional linear map
    comes before the ETF, one loss of the mixture trains both parts, and norms do not depend on the batch. The share a
    is fixed, learned by that loss, or found by the same bisection on held-out samples, as a temperature is. Training
    samples are not used for it: their confidence matches their accuracy because the model has memorized them.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        mix: a, the share of the linear head, strictly between 0 and 1. A number is fixed during training; a run then
            fits it on its hold-out. ``LEARNED`` trains it (from .8, or from ``LearnedScale(initial)``), as the sigmoid
            of a parameter (1,) without weight decay.
        scale: s of the ETF head: a positive number, ``LEARNED``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the ETF: True (to K dimensions) or the number of dimensions, >= K - 1.
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

    _dtype_source = "raw_mix"
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
            raise ValueError(
                f"mix must lie strictly between 0 and 1, got {initial}: use LinearHead or ETFHead for one part alone"
            )
        self.linear = LinearHead(feature_dim, num_classes, generator=generator)
        self.etf = ETFHead(
            feature_dim, num_classes, scale=scale, projection=projection, frame_seed=frame_seed, generator=generator
        )
        # Stored as its logit whether learned or fixed, so that every checkpoint has the same key and meaning.
        self._initial_raw = math.log(initial / (1 - initial))
        raw = torch.full((1,), self._initial_raw)
        if isinstance(mix, LearnedScale):
            self.raw_mix: Tensor = nn.Parameter(raw)
        else:
            self.register_buffer("raw_mix", raw)

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the mix that the head was built with, as its logit (1,); not used if the mix is learned."""
        return {"raw_mix": torch.full((1,), self._initial_raw, device="cpu")}

    def draw_parameters(self, generator: torch.Generator | None) -> None:  # noqa: ARG002
        """Set a learned mix to its initial value."""
        if isinstance(self.raw_mix, nn.Parameter):
            with torch.no_grad():
                self.raw_mix.fill_(self._initial_raw)

    @property
    def mix(self) -> Tensor:
        """The share a of the linear head in the mixed logits (1,)."""
        return self.raw_mix.sigmoid()

    @property
    def weight(self) -> Tensor:
        """The class vectors of both heads side by side, [a * W, (1 - a) * s * M], of shape (K, D + D')."""
        share = self.mix
        return torch.cat([share * self.linear.weight, (1 - share) * self.etf.scale * self.etf.weight], dim=1)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The bias (K,) of the linear head times its share, a * b."""
        return self.mix * cast(Tensor, self.linear.bias)

    def embed(self, features: Tensor) -> Tensor:
        """Return the features and the ETF head's unit features side by side, [h, u], of shape (N, D + D')."""
        return torch.cat([features, self.etf.embed(features)], dim=-1)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits (N, K) of embedded features (N, D + D')."""
        features, unit = embedded.tensor_split([self.feature_dim], dim=-1)
        share = self.mix
        linear: Tensor = self.linear(features)
        return share * linear + (1 - share) * self.etf.compute_logits(unit)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        raw = state_dict.get(prefix + "raw_mix")
        if raw is not None and raw.ndim == 0:  # checkpoints of version 0.2
            state_dict[prefix + "raw_mix"] = raw.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N, K) of the linear head and those of the ETF head, for a loss on each as published."""
        return self.linear(features), self.etf(features)

    @property
    def held_out(self) -> tuple[str, ...]:
        """The name of the mix's buffer, unless the mix is learned: a run fits it on its hold-out by :meth:`balance`."""
        return () if isinstance(self.raw_mix, nn.Parameter) else ("raw_mix",)

    def fit_held_out(self, features: Tensor, labels: Tensor) -> None:
        """Balance the mix on held-out samples, unless it is learned."""
        if self.held_out:
            self.balance(features, labels)

    @torch.no_grad()
    def balance(self, features: Tensor, labels: Tensor) -> float:
        """Set the linear head's share so that mean confidence equals accuracy on held-out samples; return the share.

        Use samples that the model was not trained on. If both parts are overconfident, or both underconfident, the
        share is set to nearly 1 or 0, for the part whose confidence is nearer to its accuracy. Waits for the device.

        Args:
            features: (N, D), from the model in eval mode.
            labels: (N,), int64.

        Returns:
            The share a of the linear head.

        Raises:
            ValueError: If N = 0.
        """
        if len(labels) == 0:
            raise ValueError("balance needs at least one sample, got none: pass features and labels of held-out data")
        with autocast_off(features.device.type):
            linear, etf = self.parts(features)
            share = _balanced_share(linear, etf, labels)
        self.raw_mix.fill_(math.log(share / (1 - share)))
        return share


def _balanced_share(linear: Tensor, etf: Tensor, labels: Tensor) -> float:
    """Return the share of the linear head at which confidence equals accuracy, from the logits (N, K) of both heads."""
    first, last = (_gap(share, linear, etf, labels) for share in _ENDS)
    if (first > 0) == (last > 0):
        return _ENDS[abs(last) < abs(first)]
    # From here on gap(low) <= 0 < gap(high). Either end may be the overconfident one.
    low, high = _ENDS if last > 0 else _ENDS[::-1]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _gap(middle, linear, etf, labels) > 0:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _gap(share: float, linear: Tensor, etf: Tensor, labels: Tensor) -> float:
    """Return the mixture's mean confidence minus its accuracy."""
    probabilities = (share * linear + (1 - share) * etf).softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    return float(confidence.mean() - (predicted == labels).to(confidence.dtype).mean())
