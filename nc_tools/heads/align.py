"""Turn a fixed frame to lie nearest to a trained classifier: orthogonal Procrustes."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from nc_tools.geometry import centered_basis
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.frame import FixedFrameHead

H = TypeVar("H", bound=FixedFrameHead)


def align_to(head: H, weight: Tensor) -> H:
    """Turn a head's frame, in place, to lie nearest to a trained classifier's class vectors.

    For a network that has been trained already: a random frame asks of its features a rotation that means nothing, and
    the same geometry turned this way asks only for what the geometry itself does. Among all rotations and reflections
    R it takes the one that minimizes ||F R - c W||_F, F the frame (K, D): the same one for every c > 0, and for an ETF,
    whose rows sum to zero, whatever is added to all rows of W. Closed form (Schönemann 1966): with F = C P^T, C (K, r)
    the frame in coordinates of its own and P^T P = I, the nearest frame is C Q^T with Q the polar factor of W^T C, one
    thin SVD of a D x r matrix. No D x D matrix is formed.

    Solved in float64. C of a simplex ETF is written down anew, not read from the frame, so that a frame turned many
    times is as exact as a fresh one. ``frame_seed`` goes on saying what was drawn; the frame itself is in checkpoints.

    Args:
        head: A head with a fixed frame and no projection; changed in place.
        weight: Class vectors (K, D), in the order of the head's classes.

    Returns:
        The same head.

    Raises:
        TypeError: If the head has no fixed frame.
        ValueError: If the head has a projection, which learns any rotation by itself, or the weight does not have the
            frame's shape or is not finite.

    Example:
        >>> head, trained = ETFHead(16, 4), torch.randn(4, 16)
        >>> before = float((head.weight * trained).sum())
        >>> float((align_to(head, trained).weight * trained).sum()) > before
        True
    """
    if not isinstance(head, FixedFrameHead):
        raise TypeError(
            f"align_to turns a fixed frame, got {type(head).__name__}, whose class vectors are no frame of their own: "
            f"use it with ETFHead or another FixedFrameHead"
        )
    if head.projection is not None:
        raise ValueError(
            f"{type(head).__name__} has a projection before its frame, which learns any rotation by itself: build it "
            f"with projection=False to align the frame"
        )
    if weight.shape != head.frame.shape:
        raise ValueError(f"weight must have the frame's shape {tuple(head.frame.shape)}, got {tuple(weight.shape)}")
    if not bool(weight.isfinite().all()):
        raise ValueError("weight must be finite, but it holds NaN or inf")
    with torch.no_grad():
        core = _etf_core(head.num_classes).to(head.frame.device) if isinstance(head, ETFHead) else _core(head.frame)
        head.frame.copy_(core @ _polar(weight.to(core).T @ core).T)
    return head


def _etf_core(num_classes: int) -> Tensor:
    """Return a simplex ETF in K - 1 coordinates of its own (K, K - 1)."""
    return math.sqrt(num_classes / (num_classes - 1)) * centered_basis(num_classes)


def _core(frame: Tensor) -> Tensor:
    """Return a frame in coordinates of its own (K, r), r = min(K, D): the same Gram matrix, no orientation."""
    left, sizes, _ = torch.linalg.svd(frame.double(), full_matrices=False)
    core: Tensor = left * sizes
    return core


def _polar(x: Tensor) -> Tensor:
    """Return the matrix with orthonormal columns that is nearest to x (D, r)."""
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    orthonormal: Tensor = left @ right
    return orthonormal
