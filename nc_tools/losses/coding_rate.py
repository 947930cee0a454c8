"""Maximal coding rate reduction (MCR2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._rows import labeled
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def coding_rate_gain(
    features: Tensor, labels: Tensor, squared_distortion: float = 0.5, kept: Tensor | None = None
) -> Tensor:
    """Return how many nats per sample fewer it takes to code features class by class than all together.

    This is the rate reduction of :class:`CodingRateLoss`.

    Args:
        features: (N, D); scaled to unit length here.
        labels: (N,). Samples with the label -100 do not count.
        squared_distortion: e^2.
        kept: Which samples count (N,), bool; None for all with a label.

    Returns:
        A scalar, not negative; 0 in a batch of one class.

    Example:
        >>> round(coding_rate_gain(torch.eye(2), torch.tensor([0, 1])).item(), 4)
        0.2939
    """
    kept = labeled(labels, kept)
    z = normalize(at_least_float32(features))
    count: int | Tensor
    count, width = z.shape
    same = labels[:, None] == labels
    smaller_is_gram = count <= width
    if kept is not None:  # rows of zeros change no determinant
        z, same = z * kept[:, None], same & kept & kept[:, None]
        count = kept.sum().clamp(min=1)
    scale = width / (count * squared_distortion)
    size = same.sum(1).to(z.dtype)
    gram = z @ z.T
    smaller = gram if smaller_is_gram else z.T @ z
    together = _log_diagonal(scale * smaller).sum()
    # All classes in one factorization: between classes the matrix is 0, and so is its factor. The diagonal entries of a
    # class's samples give the determinant of that class, in whatever order its samples come.
    inverse = (count / size.clamp(min=1)).sqrt()
    apart = _log_diagonal(scale * (gram * inverse * inverse[:, None]).masked_fill(~same, 0))
    return together - (size * apart).sum() / count


def _log_diagonal(matrix: Tensor) -> Tensor:
    """Return log L_ii of I + matrix = L L^T (M,). Success is not checked, which would wait for the device."""
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor: Tensor = torch.linalg.cholesky_ex(matrix + eye).L
    return factor.diagonal().log()


class CodingRateLoss(LossTerm):
    """Maximal coding rate reduction (MCR2): minus the nats per sample saved by coding the batch class by class.

    gain = 1/2 logdet(I + D/(N e^2) Z^T Z) - sum_k n_k/(2N) logdet(I + D/(n_k e^2) Z_k^T Z_k).

    It acts against collapse within a class: classes fill subspaces that are orthogonal to each other, which keeps the
    differences within a class. Source: Yu et al. 2020. Z (N, D) are the backbone's features of the batch at unit
    length, and e^2 = .5. Unlike there, all classes are in one Cholesky factor (N, N): memory is O(N^2) and not
    O(K D^2), and there is no loop over classes. Class vectors get no gradient from it.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features.

    Args:
        squared_distortion: e^2, the squared error that a coded feature may have.

    Raises:
        ValueError: If it is not positive and finite.

    Example:
        >>> CodingRateLoss()
        CodingRateLoss(squared_distortion=0.5)
    """

    over_batch = True

    def __init__(self, squared_distortion: float = 0.5) -> None:
        super().__init__()
        if not 0 < squared_distortion < math.inf:
            raise ValueError(f"squared_distortion must be positive and finite, got {squared_distortion}. Usual is .5.")
        self.squared_distortion = squared_distortion

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return minus the coding-rate gain of the batch."""
        return -coding_rate_gain(outputs.features, batch.labels, self.squared_distortion, batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"squared_distortion={self.squared_distortion}"
