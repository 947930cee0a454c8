"""The geometry of class means: the directions they span, NC2, NC3 and class distances.

Everything here reads at most K x D numbers, in float64, of the classes that have samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows

# The rounding of float32 features, whatever type they are stored in now: no measure of them can resolve less.
_EPS = torch.finfo(torch.float32).eps
# Entries of one block of the K x K Gram matrix: 64 MB of float64, so that K = 50,000 fits anywhere.
_GRAM_ENTRIES = 1 << 23


def whitened_directions(centered: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the whitened directions in which class means differ, a factor of the pseudo-inverse of S_B.

    With the thin SVD of the centered means C = U S V^T, cut at rank min(K - 1, D), the columns are V / S, so that
    S_B^+ = (C^T C / K)^+ = K (V/S)(V/S)^T. Singular values below S_max * max(K, D) * 1.2e-7, the rounding of float32
    features, are cut too (their columns are zero). Without this cut, a direction that is only rounding error would
    multiply NC1 by millions. The SVD is computed from the smaller Gram matrix in float64, which resolves singular
    values below that cut.

    Args:
        centered: Class means minus their mean (K, D), float64.
        floor: Singular values up to this one are rounding errors; a scalar.

    Returns:
        The columns (D, r) with r = min(K - 1, D), and the singular values (r,), zero where cut.
    """
    num_classes, feature_dim = centered.shape
    rank = min(num_classes - 1, feature_dim)
    wide = num_classes <= feature_dim
    values, vectors = torch.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)
    singular = values[-rank:].clamp(min=0).sqrt()
    cut = (singular[-1] * max(num_classes, feature_dim) * _EPS).maximum(floor)
    inverse = torch.where(singular > cut, 1 / singular, 0.0)
    basis = vectors[:, -rank:]
    columns = (centered.T @ basis) * inverse.square() if wide else basis * inverse
    return columns, torch.where(singular > cut, singular, 0.0)


@dataclass(frozen=True)
class ClassMeans:
    """The means of the K classes that have samples, centered and whitened; float64.

    Attributes:
        index: The class index of each mean (K,).
        counts: Samples of each class (K,).
        means: (K, D).
        centered: The means minus their unweighted mean (K, D).
        whitening: H (D, r), such that the class-averaged S_B^+ = K H H^T.
        singular: Singular values of the centered means (r,), 0 where cut.
        pooled: P (r, r), such that the sample-pooled S_B^+ = (H P)(H P)^T.
    """

    index: Tensor
    counts: Tensor
    means: Tensor
    centered: Tensor
    whitening: Tensor
    singular: Tensor
    pooled: Tensor

    @staticmethod
    def from_means(index: Tensor, counts: Tensor, means: Tensor) -> ClassMeans:
        """Center and whiten the means of at least two classes.

        The sample-pooled S_B = sum_k (n_k/N)(mu_k - mu_G)(mu_k - mu_G)^T, mu_G the mean of all samples, spans the same
        directions as the class-averaged S_B, those of the differences of means. So its pseudo-inverse needs the inverse
        of an r x r matrix only, whose condition number depends on the class frequencies alone.
        """
        counts = counts.double()
        centered = means - means.mean(dim=0)
        rounding = rounding_of_means(means, counts)
        # Means that differ by rounding alone are one point: their angles would be noise.
        centered = torch.where(torch.linalg.matrix_norm(centered) > rounding, centered, 0.0)
        whitening, singular = whitened_directions(centered, rounding)
        share = counts / counts.sum()
        inside = (centered - share @ centered) @ whitening
        between = (inside * share[:, None]).T @ inside
        # Directions that were cut have a zero row and column: a one on the diagonal keeps the matrix invertible.
        between.diagonal().add_((singular == 0).to(between.dtype))
        factor = torch.linalg.cholesky(between)
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        pooled = torch.linalg.solve_triangular(factor, eye, upper=False).T
        return ClassMeans(index, counts, means, centered, whitening, singular, pooled)


def rounding_of_means(means: Tensor, counts: Tensor) -> Tensor:
    """Return the norm of the error, a scalar, that float32 rounding of the features leaves in class means (K, D).

    The roundings of n samples are independent, so the error of their mean is 1/sqrt(n) of that of one.
    """
    rounding: Tensor = torch.linalg.matrix_norm(means / counts.sqrt()[:, None]) * _EPS
    return rounding


def present_means(means: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the indices of the classes that have samples, and their centered means (K', D), float64.

    Args:
        means: (all classes, D).
        counts: Samples of each class; None if every class has some.

    Raises:
        TypeError: If the means are not floating-point.
        ValueError: If the shapes do not fit, a mean is not finite, or fewer than two classes have samples.
    """
    if not means.is_floating_point():
        raise TypeError(f"class means must be floating-point, got {means.dtype}")
    if means.ndim != 2:
        raise ValueError(f"class means must have the shape (K, D), got {tuple(means.shape)}")
    if counts is not None and counts.shape != means.shape[:1]:
        raise ValueError(f"counts must have the shape ({len(means)},) to fit the means, got {tuple(counts.shape)}")
    sizes = torch.ones(len(means), device=means.device) if counts is None else counts.to(means.device)
    index = (sizes > 0).nonzero().flatten()
    if len(index) < 2:
        raise ValueError(f"neural collapse needs the means of at least 2 classes with samples, got {len(index)}")
    present = means.detach().double()[index]
    bad = count_bad_rows(present)
    if bad:
        raise ValueError(
            f"class means must be finite, but {bad} of {len(present)} hold NaN or inf: remove the samples whose "
            "features do, or check the model that produced them"
        )
    centered = present - present.mean(dim=0)
    rounding = rounding_of_means(present, sizes[index].double())
    return index, torch.where(torch.linalg.matrix_norm(centered) > rounding, centered, 0.0)


def present_rows(weight: Tensor, means: Tensor, index: Tensor) -> Tensor:
    """Return the rows of a head's weight for the classes at ``index``, in float64.

    Raises:
        ValueError: If the weight does not have the shape of the means.
    """
    if weight.shape != means.shape:
        raise ValueError(
            f"weight must have the shape of the class means {tuple(means.shape)}, got {tuple(weight.shape)}: pass the "
            "means of the features that the head multiplies by its weight"
        )
    return weight.detach().to(index.device).double()[index]


def finite_values(values: dict[str, Tensor]) -> dict[str, float]:
    """Return named scalar tensors as floats, copied from the device at once; NaN and inf are left out."""
    numbers = torch.stack([value.double() for value in values.values()]).tolist() if values else []
    return {key: value for key, value in zip(values, numbers, strict=True) if math.isfinite(value)}


def gram_blocks(centered: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the Gram matrix of the rows (K, D) in blocks of rows, each with the index of its first row."""
    step = max(1, _GRAM_ENTRIES // len(centered))
    for start in range(0, len(centered), step):
        yield start, centered[start : start + step] @ centered.T


def mean_geometry(centered: Tensor, variances: Tensor) -> dict[str, Tensor]:
    """Return NC2 (equal norms and equal angles of class means) and CDNV (class distances relative to variances).

    With c_k the centered means, G = C C^T their Gram matrix and v_k the variance of class k:

        nc2_equinorm     std_k ||c_k|| / mean_k ||c_k||            (the population's standard deviation)
        nc2_equiangular  mean_{i != j} |cos(c_i, c_j) + 1/(K - 1)|
        nc2_gram         || G/||G||_F - (I - 11^T/K)/sqrt(K - 1) ||_F
        cdnv             mean_{i != j} (v_i + v_j) / (2 ||c_i - c_j||^2)

    Args:
        centered: Class means minus their mean (K, D), float64, K >= 2.
        variances: (K,).

    Returns:
        Scalars on the device; NaN or inf if a quantity is not defined.
    """
    num_classes = len(centered)
    squares = centered.square().sum(dim=1)
    norms = squares.sqrt()
    angles, gram_squares, misfit, ratios = torch.zeros(4, dtype=centered.dtype, device=centered.device)
    for start, gram in gram_blocks(centered):
        rows = torch.arange(start, start + len(gram), device=centered.device)
        diagonal = (rows - start, rows)
        cosine = (gram / (norms[rows, None] * norms)).add_(1 / (num_classes - 1)).abs_()
        cosine[diagonal] = 0
        angles = angles + cosine.sum()
        gram_squares = gram_squares + gram.square().sum()
        distances = squares[rows, None] + squares - 2 * gram
        distances[diagonal] = torch.inf
        ratios = ratios + ((variances[rows, None] + variances) / (2 * distances.clamp_(min=0))).sum()
    size = gram_squares.sqrt()
    for start, gram in gram_blocks(centered):
        rows = torch.arange(start, start + len(gram), device=centered.device)
        difference = (gram / size).add_(1 / (num_classes * (num_classes - 1) ** 0.5))
        difference[rows - start, rows] -= 1 / (num_classes - 1) ** 0.5
        misfit = misfit + difference.square().sum()
    pairs = num_classes * (num_classes - 1)
    return {
        "cdnv": ratios / pairs,
        "nc2_equinorm": norms.std(correction=0) / norms.mean(),
        "nc2_equiangular": angles / pairs,
        "nc2_gram": misfit.sqrt(),
    }


def self_duality(centered: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Return NC3: how far the rows of a head's weight are from the centered means of their classes.

        nc3_distance  || W/||W||_F - C/||C||_F ||_F
        nc3_cosine    mean_k (1 - cos(w_k, c_k))

    The weight is taken as it is, not centered (Papyan, Han and Donoho, 2020).

    Args:
        centered: (K, D), float64.
        weight: (K, D), the rows of the same classes.

    Returns:
        Scalars on the device; NaN if a norm is zero.
    """
    rows = weight.to(centered)
    norms = torch.linalg.vector_norm(centered, dim=1) * torch.linalg.vector_norm(rows, dim=1)
    return {
        "nc3_distance": torch.linalg.matrix_norm(
            rows / torch.linalg.matrix_norm(rows) - centered / torch.linalg.matrix_norm(centered)
        ),
        "nc3_cosine": (1 - (rows * centered).sum(dim=1) / norms).mean(),
    }
