"""Vertices of regular polytopes as class vectors: the cross-polytope and the cube."""

import math

import torch
from torch import Tensor


def orthoplex(num_classes: int) -> Tensor:
    """Return K vertices of the cross-polytope, two opposite ones on each axis: +e_i and -e_i.

    They are optimal among K points on a sphere in D dimensions for D + 2 <= K <= 2 D (Rankin 1955): no two are closer
    than 90 degrees, in half the dimensions that a simplex needs. Row 2 i is +e_i and row 2 i + 1 is -e_i. The two rows
    of an axis are opposite, all other pairs are orthogonal. The order of the classes decides which of them share an
    axis.

    Args:
        num_classes: K, at least 2.

    Returns:
        (K, ceil(K / 2)), float64, unit rows.

    Raises:
        ValueError: If K < 2.

    Example:
        >>> orthoplex(3).tolist()
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]
    """
    _check(num_classes)
    vertex = torch.arange(num_classes, device="cpu")
    frame = torch.zeros(num_classes, (num_classes + 1) // 2, dtype=torch.float64, device="cpu")
    frame[vertex, vertex // 2] = (1 - 2 * (vertex % 2)).to(torch.float64)
    return frame


def cube(num_classes: int) -> Tensor:
    """Return K corners of a cube as unit vectors, with entries +-1 / sqrt(D), D = ceil(log2 K).

    D is the smallest number of dimensions in which all classes differ in at least one sign. In so few dimensions
    classes are close: two classes that differ in b signs have cosine 1 - 2 b / D. The signs of vertex k are the binary
    digits of k, the last digit first, + for 0.

    Args:
        num_classes: K, at least 2.

    Returns:
        (K, ceil(log2 K)), float64, unit rows.

    Raises:
        ValueError: If K < 2.

    Example:
        >>> (cube(4) * 2**0.5).round().tolist()
        [[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
    """
    _check(num_classes)
    dim = (num_classes - 1).bit_length()
    digits = torch.arange(num_classes, device="cpu").unsqueeze(1) >> torch.arange(dim, device="cpu") & 1
    return (1 - 2 * digits.to(torch.float64)) / math.sqrt(dim)


def _check(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"a class geometry needs at least 2 classes, got {num_classes}")
