"""SELI: the geometry that cross-entropy approaches on imbalanced classes, and the distance to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.collapse.mean_geometry import finite_values, present_means, present_rows


@dataclass(frozen=True)
class SELIGeometry:
    """Gram matrices of the simplex-encoded-labels interpolation (SELI), for the classes that have samples.

    Attributes:
        index: The class index of each row (K,).
        weight_gram: Gram matrix of the rows of the head (K, K), float64.
        mean_gram: Gram matrix of the class means of the features (K, K), float64.
    """

    index: Tensor
    weight_gram: Tensor
    mean_gram: Tensor


def seli_geometry(class_counts: Tensor | Sequence[int]) -> SELIGeometry:
    """Return the SELI geometry, which cross-entropy approaches for given class counts as regularization vanishes.

    With Z the K x N matrix of columns e_y - 1/K (the encoded labels) and Z = V L U^T, the head is W = V L^{1/2} and the
    features H = L^{1/2} U^T, up to scale and rotation. Since Z Z^T = C diag(n) C with C = I - 11^T/K,

        W W^T = (C diag(n) C)^{1/2},        M M^T = its pseudo-inverse,

    M the class means, in O(K^3) for any N. Balanced counts give the simplex frame. Source: Thrampoulidis, Kini,
    Vakilian and Behnia (2022). With ordinary weight decay the limit is approached slowly: a network far from it is not
    faulty.

    Args:
        class_counts: Samples of each class (K,); classes without samples are left out.

    Raises:
        ValueError: If fewer than two classes have samples.

    Example:
        >>> gram = seli_geometry([5, 5, 5]).weight_gram
        >>> round(float(gram[0, 1] / gram[0, 0]), 6)
        -0.5
    """
    counts = torch.as_tensor(class_counts)
    index = (counts > 0).nonzero().flatten()
    if counts.ndim != 1 or len(index) < 2:
        raise ValueError(f"class_counts must have samples of at least 2 classes, got {len(index)}")
    num_classes = len(index)
    centering = torch.eye(num_classes, dtype=torch.float64, device=counts.device) - 1 / num_classes
    scatter = centering @ torch.diag(counts[index].double()) @ centering
    values, vectors = torch.linalg.eigh(scatter)
    # One eigenvalue is 0 up to rounding: that of the vector of ones.
    roots, basis = values[1:].sqrt(), vectors[:, 1:]
    return SELIGeometry(index, (basis * roots) @ basis.T, (basis / roots) @ basis.T)


def seli_distance(
    class_counts: Tensor | Sequence[int], *, weight: Tensor | None = None, means: Tensor | None = None
) -> dict[str, float]:
    """Measure how far a head and class means are from the SELI geometry, and from a simplex (equiangular) frame.

    The two distances show which of the two geometries a run approaches:

        seli_weight, etf_weight   || W W^T/||W W^T||_F - G/||G||_F ||_F, G of SELI, of the simplex frame
        seli_means,  etf_means    the same of C C^T, C the class means minus their mean

    A distance is 0 when the geometry is reached, and at most sqrt(2). Source: Thrampoulidis et al. (2022), their
    distances of Gram matrices.

    Args:
        class_counts: Training samples of each class (K,).
        weight: (K, D), or None.
        means: Training class means (K, D), or None.

    Returns:
        The quantities by name; no keys for a weight or means that are zero.

    Raises:
        ValueError: If neither weight nor means are given, shapes do not fit, fewer than two classes have samples, or a
            value is not finite.

    Example:
        >>> values = seli_distance([5, 5, 5], weight=torch.eye(3) - 1 / 3)
        >>> round(values["seli_weight"], 6), round(values["etf_weight"], 6)
        (0.0, 0.0)
    """
    if weight is None and means is None:
        raise ValueError("seli_distance needs a weight or class means, got neither: give weight=, means= or both")
    counts = torch.as_tensor(class_counts)
    geometry = seli_geometry(counts)
    num_classes = len(geometry.index)
    simplex = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    values: dict[str, Tensor] = {}
    for name, part, ideal in (("weight", weight, geometry.weight_gram), ("means", means, geometry.mean_gram)):
        if part is None:
            continue
        if len(part) != len(counts):
            raise ValueError(f"{name} must have a row for each of {len(counts)} class counts, got {len(part)}")
        with measuring_precision(part.device):
            index, centered = present_means(part, counts)
            rows = centered if name == "means" else present_rows(part, part, index)
            gram = rows @ rows.T
            values |= {
                f"seli_{name}": _distance(gram, ideal.to(gram)).cpu(),
                f"etf_{name}": _distance(gram, simplex.to(gram)).cpu(),
            }
    return finite_values(values)


def _distance(gram: Tensor, ideal: Tensor) -> Tensor:
    difference = gram / torch.linalg.matrix_norm(gram) - ideal / torch.linalg.matrix_norm(ideal)
    norm: Tensor = difference.square().sum().sqrt()
    return norm
