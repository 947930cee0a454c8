"""Rotate the fixed class vectors of a head to match those of a trained classifier (orthogonal Procrustes)."""

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
    """Rotate a head's fixed class vectors, in place, as near as possible to those of a trained classifier.

    Use it for a network that is already trained. With a random frame, fine-tuning would first have to rotate the
    features for no benefit. With an aligned frame it only has to change their geometry.

    Among all rotations and reflections R this takes the one that minimizes ||F R - c W||_F, with F the frame (K, D) and
    W the trained weight. R is the same for every c > 0. For an ETF, whose rows sum to zero, R does not change either if
    one vector is added to all rows of W. Closed form (Schönemann 1966): let F = C P^T with C (K, r) and P^T P = I. Then
    the nearest frame is C Q^T, with Q the polar factor of W^T C: one thin SVD of a D x r matrix, and no D x D matrix.

    Solved in float64. For a simplex ETF, C is computed anew and not from the frame, so a frame that is rotated many
    times stays exact. ``frame_seed`` is unchanged and still names the original draw; checkpoints contain the frame.

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
            f"align_to needs a head with fixed class vectors, got {type(head).__name__}: use ETFHead or another "
            f"FixedFrameHead"
        )
    if head.projection is not None:
        raise ValueError(
            f"align_to needs a head without a projection, got {type(head).__name__} with a projection, which learns "
            f"the rotation by itself: build the head with projection=False"
        )
    if weight.shape != head.frame.shape:
        shape = tuple(head.frame.shape)
        raise ValueError(
            f"weight must have the shape of the head's class vectors, {shape}, got {tuple(weight.shape)}: pass the "
            f"weight of a classifier with the same classes and features"
        )
    if not bool(weight.isfinite().all()):
        raise ValueError("weight must be finite, got NaN or inf: check the classifier that it comes from")
    with torch.no_grad():
        core = _etf_core(len(head.frame)).to(head.frame.device) if isinstance(head, ETFHead) else _core(head.frame)
        head.frame.copy_(core @ _polar(weight.to(core).T @ core).T)
    return head


def _etf_core(num_classes: int) -> Tensor:
    """Return a simplex ETF in K - 1 coordinates (K, K - 1)."""
    return math.sqrt(num_classes / (num_classes - 1)) * centered_basis(num_classes)


def _core(frame: Tensor) -> Tensor:
    """Return the frame in r = min(K, D) coordinates (K, r): the same Gram matrix, in an arbitrary orientation."""
    left, sizes, _ = torch.linalg.svd(frame.double(), full_matrices=False)
    core: Tensor = left * sizes
    return core


def _polar(x: Tensor) -> Tensor:
    """Return the matrix with orthonormal columns that is nearest to x (D, r)."""
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    orthonormal: Tensor = left @ right
    return orthonormal
