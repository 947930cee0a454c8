"""Neural collapse of regression networks: NRC1 to NRC3."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.collapse.mean_geometry import finite_values


def regression_collapse(features: Tensor, targets: Tensor, weight: Tensor) -> dict[str, float]:
    """Measure whether the features of a regression network have collapsed to as many directions as there are targets.

    With h_i the centered features at unit length, P_n the projection on the first n principal components of the
    centered features, P_W the projection on the rows of the head, and Sigma the covariance of the targets,

        nrc1         mean_i ||h_i - P_n h_i||^2
        nrc2         mean_i ||h_i - P_W h_i||^2
        nrc3         min over 0 <= gamma <= lambda_min(Sigma) of || A/||A||_F - B/||B||_F ||_F^2,
                     A = W W^T,  B = Sigma^{1/2} - gamma^{1/2} I
        nrc3_gamma   the gamma that reaches it

    The first three are 0 when collapsed; nrc1 and nrc2 lie in [0, 1], nrc3 in [0, 2]. The best gamma has a closed form,
    so no solver is needed. Source: Andriopoulos et al. (2024). With one target there are no angles, and so no nrc3.

    Args:
        features: (N, D).
        targets: (N, n), or (N,) for one target.
        weight: The head (n, D), or (D,).

    Returns:
        The quantities by name; no nrc1 and nrc2 if the features are constant.

    Raises:
        TypeError: If an argument is not floating-point.
        ValueError: If shapes do not fit, there are fewer than two samples or a value is not finite.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]])
        >>> values = regression_collapse(h, torch.tensor([1.0, -1.0, 2.0]), torch.tensor([1.0, 0.0]))
        >>> round(values["nrc1"], 6), round(values["nrc2"], 6)
        (0.0, 0.0)
    """
    y = targets.detach().view(-1, 1) if targets.ndim == 1 else targets.detach()
    rows = weight.detach().view(1, -1) if weight.ndim == 1 else weight.detach()
    _check(features, y, rows)
    with measuring_precision(features.device):
        x = at_least_float32(features.detach()).double()
        y, rows = at_least_float32(y).to(x), at_least_float32(rows).to(x)
        for name, part in (("features", x), ("targets", y), ("weight", rows)):
            bad = count_bad_rows(part)
            if bad:
                raise ValueError(
                    f"{name} must be finite, but {bad} of {len(part)} rows hold NaN or inf: remove these rows, or "
                    "check the model and data that produced them"
                )
        centered = x - x.mean(dim=0)
        norms = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
        off_mean = (norms > torch.linalg.vector_norm(x, dim=1, keepdim=True) * 1e-12).flatten()
        units = centered[off_mean] / norms[off_mean]  # a feature equal to the mean has no direction
        principal = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -min(rows.shape[0], x.shape[1]) :]
        values = {"nrc1": _outside(units, principal), "nrc2": _outside(units, _row_space(rows))}
        if y.shape[1] > 1:
            values |= _structure(rows @ rows.T, y)
        return finite_values(values)


def _outside(units: Tensor, basis: Tensor) -> Tensor:
    """Return the mean squared length of the part of unit vectors (N, D) outside the span of a basis (D, r)."""
    return (units - (units @ basis) @ basis.T).square().sum(dim=1).mean()


def _row_space(rows: Tensor) -> Tensor:
    _, singular, right = torch.linalg.svd(rows, full_matrices=False)
    basis: Tensor = right[singular > singular[0] * 1e-7].T
    return basis


def _structure(gram: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return NRC3 in closed form.

    With S = Sigma^{1/2} and s = gamma^{1/2}, the cosine of A and S - s I is largest at an end of the range of s, or
    where its derivative in s is zero. The numerator of that derivative is linear in s.

    Args:
        gram: A = W W^T (n, n).
        targets: (N, n).
    """
    number = targets.shape[1]
    centered = targets - targets.mean(dim=0)
    eigenvalues, vectors = torch.linalg.eigh(centered.T @ centered / len(targets))
    root = (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T
    least = eigenvalues[0].clamp(min=0).sqrt()
    overlap, trace, size = (gram * root).sum(), gram.trace(), root.square().sum()
    turning = (trace * size - overlap * root.trace()) / (trace * root.trace() - overlap * number)
    candidates = torch.stack([torch.zeros_like(least), least, turning.nan_to_num().clamp(min=0).minimum(least)])
    ideal = root - candidates[:, None, None] * torch.eye(number, dtype=root.dtype, device=root.device)
    cosines = (gram * ideal).sum((1, 2)) / (torch.linalg.matrix_norm(gram) * torch.linalg.matrix_norm(ideal))
    best = cosines.nan_to_num(nan=-torch.inf).argmax()
    nrc3 = 2 - 2 * cosines[best]  # not a number if the weight or the targets do not vary; so is then the best gamma
    return {"nrc3": nrc3, "nrc3_gamma": torch.where(nrc3.isnan(), nrc3, candidates[best].square())}


def _check(features: Tensor, targets: Tensor, weight: Tensor) -> None:
    for name, part in (("features", features), ("targets", targets), ("weight", weight)):
        if not part.is_floating_point():
            raise TypeError(f"{name} must be floating-point, got {part.dtype}: convert them with .float()")
        if part.ndim != 2:
            raise ValueError(f"{name} must have two dimensions, got the shape {tuple(part.shape)}")
    if len(features) != len(targets) or len(features) < 2:
        raise ValueError(
            f"features and targets must have equally many samples, at least 2, got {len(features)} and {len(targets)}"
        )
    if weight.shape != (targets.shape[1], features.shape[1]):
        raise ValueError(
            f"weight must have the shape ({targets.shape[1]}, {features.shape[1]}), targets x features, got "
            f"{tuple(weight.shape)}"
        )
