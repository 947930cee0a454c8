"""A head with fixed random class vectors: the control experiment for every fixed geometry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.normalize import normalize


class FrozenRandomHead(FixedFrameHead):
    """Fixed random unit class vectors: a control that separates the effect of the ETF from that of freezing.

    If this head gains as much as an :class:`ETFHead`, the gain is not due to the geometry. Rows are independent
    Gaussian directions; scale, projection and normalization are as in :class:`ETFHead`.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True (to K dimensions) or the number of dimensions.
        normalize: Scale the (projected) features to unit length.
        assignment: Which row each class takes: a permutation (K,), ``RANDOM``, or None for class k on row k.
        frame_seed: Draws the frame.
        generator: Draws the projection's initial weights; the global one if None.

    Example:
        >>> head = FrozenRandomHead(64, 10)
        >>> bool(torch.allclose(head.weight.norm(dim=1), torch.ones(10)))
        True
    """

    geometry = "random"
    # The rows of an ETF have unit length too, so values alone cannot tell the two apart. With a name of its own, this
    # head never loads the frame of the ETF head that it is compared with.
    _stored_as = "random_frame"
    random_frame: Tensor

    @property
    def frame(self) -> Tensor:  # type: ignore[override]
        """The class vectors (K, D')."""
        return self.random_frame

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the tensors of a checkpoint of version 0.2, in which the frame had the name of the other heads."""
        return {self._stored_as if key == "frame" else key: tensor for key, tensor in state.items()}

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return independent random unit rows (K, D')."""
        return normalize(torch.randn(num_classes, width, dtype=torch.float64, generator=generator, device="cpu"))

    def frame_error(self, frame: Tensor) -> float:
        """Return the largest difference between a row's norm and one."""
        return float((torch.linalg.vector_norm(frame.detach().to(torch.float64), dim=1) - 1).abs().max())
