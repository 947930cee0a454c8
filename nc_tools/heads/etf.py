"""The head with the fixed class vectors of a simplex equiangular tight frame (ETF)."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.geometry import simplex_etf
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.frame_errors import simplex_error


class ETFHead(FixedFrameHead):
    """Fixed simplex-ETF head: class vectors at equal, largest possible angles, never trained.

    It saves K x D parameters and their optimizer state, and the class vectors of rare classes cannot merge (minority
    collapse). Whether it helps depends on the data: run a comparison; benchmarks/results has what was measured.

    With ``projection=True, scale=LEARNED`` and a prior-adjusted loss this is the head of FedETF (Li et al. 2023, eq. 5
    to 7), but with unit rows: the public matrix lacks the factor sqrt(K / (K - 1)). Without these two arguments, and
    with :class:`~nc_tools.losses.DotRegressionLoss`, it is the head of Yang et al. (2022, eq. 2 and 8).

    For thousands of classes, :class:`~nc_tools.heads.StructuredETFHead` has the same geometry without the matrix.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True (to K dimensions) or the number of dimensions, >= K - 1.
        normalize: Scale the (projected) features to unit length.
        assignment: Which vertex each class takes: a permutation (K,), ``RANDOM``, or None for class k on vertex k. All
            vertices are equally far apart, so no order is better in itself. It only changes how far the initial
            features are from their vertices; :func:`~nc_tools.geometry.assign_by_means` makes this distance small.
        frame_seed: Draws the Haar rotation of the frame.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is below K - 1, or is 1 with normalized features, the scale is
            not positive, or the assignment is no permutation.

    Example:
        >>> head = ETFHead(64, 10)
        >>> [round(float(v), 3) for v in (head.weight @ head.weight.T)[0, :2]]
        [1.0, -0.111]
        >>> ETFHead(8, 10)
        Traceback (most recent call last):
        ...
        ValueError: a simplex ETF of 10 classes needs feature_dim >= 9, got 8: give the head projection=9 (or more), \
a learned linear map to that many dimensions, or use SphericalCodeHead
    """

    geometry = "simplex ETF"

    @staticmethod
    def draw_frame(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
        """Return a simplex ETF in a uniformly random rotation, of shape (K, D')."""
        return simplex_etf(num_classes, width, generator=generator)

    def frame_error(self, frame: Tensor) -> float:
        """Return how far class vectors W (K, D') are from a simplex ETF: the relative error of W W^T v, v random."""
        return simplex_error(frame)
