"""A head with a projector: little collapse in the features before it, strong collapse after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.fixed_map import FixedMap
from nc_tools.heads.projection import Projection
from nc_tools.heads.scale import LearnedScale
from nc_tools.seeds import stream


class TwoSpaceHead(ETFHead):
    """A projector and a fixed simplex ETF: the projected features collapse, the backbone's features need not.

    Collapse helps out-of-distribution detection and hurts transfer. With two spaces you can have features for both:

        u = norm(V relu(U h)),    z = s W u.

    ``outputs.features`` are the backbone's h, for probes, kNN and fine-tuning. ``outputs.embedded`` are the projected
    u, for out-of-distribution scores. Combine it with a loss term that spreads h (an entropy or KoLeo regularizer).

    Source: Harun, Gallardo and Kanan (2025, "Controlling neural collapse enhances out-of-distribution detection and
    transfer learning", section 4): a frozen projector of two layers with a ReLU between them, normalization to unit
    length, then a *learned* linear classifier. The published weights are sqrt(c / (c - 1)) (I - 11^T / c) with a
    rectangular I, which is no ETF: from 512 to 2048 units three quarters of the rows are equal. Here the class vectors
    are an exact simplex ETF, and the layers have the intended properties. The rows of U are a tight frame and sum to
    zero (U^T U = (H / D) I); at H = D + 1 they are the simplex ETF of D + 1 vertices, the most that D dimensions can
    have. The rows of V are orthonormal, and each sums to zero, which removes the common mean that a ReLU gives all
    features. Both are Haar-distributed. No layer has a bias.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        hidden: H, at least D + 1; None takes 4 D (512 to 2048, as published), or K if that is larger.
        width: Width of the projected space, from K - 1 to H - 1; None takes D, or K - 1 if that is larger.
        learned: Train the projector from its initial values; as published it is frozen.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        frame_seed: Draws the projector and the frame.

    Raises:
        ValueError: If K < 2, H <= D, the width is not between K - 1 and H - 1, or the scale is not positive.

    Example:
        >>> head = TwoSpaceHead(16, 5)
        >>> outputs = head.outputs(torch.randn(2, 16))
        >>> outputs.features.shape, outputs.embedded.shape, sum(p.numel() for p in head.parameters())
        (torch.Size([2, 16]), torch.Size([2, 16]), 0)
    """

    geometry = "simplex ETF behind a projector"
    up: FixedMap | LearnedMap
    down: FixedMap | LearnedMap

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        hidden: int | None = None,
        width: int | None = None,
        learned: bool = False,
        scale: float | LearnedScale | None = None,
        frame_seed: int = 0,
    ) -> None:
        wide = max(4 * feature_dim, num_classes) if hidden is None else hidden
        narrow = max(feature_dim, num_classes - 1) if width is None else width
        if wide <= feature_dim:
            raise ValueError(
                f"hidden must be at least feature_dim + 1 = {feature_dim + 1}, got {wide}: omit it to use the default"
            )
        if num_classes >= 2 and not num_classes - 1 <= narrow < wide:
            raise ValueError(
                f"width must be {num_classes - 1} to {wide - 1} for {num_classes} classes and hidden={wide}, got "
                f"width={narrow}: omit it to use the default, or increase hidden"
            )
        super().__init__(narrow, num_classes, scale=scale, frame_seed=frame_seed)
        self.feature_dim = feature_dim
        draws = {"up": partial(_up, wide, feature_dim, frame_seed), "down": partial(_down, wide, narrow, frame_seed)}
        sizes = {"up": (feature_dim, wide), "down": (wide, narrow)}
        for name, draw in draws.items():
            self.add_module(name, LearnedMap(*sizes[name], draw) if learned else FixedMap(draw))

    def _project(self, features: Tensor) -> Tensor:
        projected: Tensor = self.down(self.up(features).relu())
        return projected

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the tensors of a checkpoint of version 0.2, in which the two matrices had no modules of their own."""
        part = "rows" if isinstance(self.up, FixedMap) else "weight"
        return {f"{key}.{part}" if key in {"up", "down"} else key: tensor for key, tensor in state.items()}


class LearnedMap(Projection):
    """A linear map that is learned from given initial values.

    Args:
        in_features: D.
        out_features: D'.
        draw: Returns the initial matrix (D', D); must be picklable.
    """

    def __init__(self, in_features: int, out_features: int, draw: Callable[[], Tensor]) -> None:
        self._draw = draw
        super().__init__(in_features, out_features, None)

    def draw_parameters(self, generator: torch.Generator | None) -> None:  # noqa: ARG002
        """Set the weight to its initial values."""
        if not self.weight.is_meta:
            with torch.no_grad():
                self.weight.copy_(self._draw())


def _up(hidden: int, feature_dim: int, frame_seed: int) -> Tensor:
    """Return U (H, D), float64, with U^T U = (H / D) I; its rows sum to zero."""
    rows: Tensor = (hidden / feature_dim) ** 0.5 * _centered_frame(hidden, feature_dim, stream(frame_seed, "frame", 1))
    return rows


def _down(hidden: int, width: int, frame_seed: int) -> Tensor:
    """Return V (width, H), float64, with orthonormal rows that each sum to zero."""
    rows: Tensor = _centered_frame(hidden, width, stream(frame_seed, "frame", 2)).T
    return rows


def _centered_frame(dim: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw orthonormal columns that each sum to zero (dim, columns), uniformly among all such frames, float64."""
    gaussian = torch.randn(dim, columns, dtype=torch.float64, generator=generator, device="cpu")
    q, r = torch.linalg.qr(gaussian - gaussian.mean(dim=0))
    frame: Tensor = q * torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(q.dtype)
    return frame
