"""Decoupled hyperspherical energy loss (DHEL): InfoNCE with separate terms for alignment and uniformity."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._pairwise import among, by_rows, log_sum_exp, of_kept, two_views
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def decoupled_info_nce(first: Tensor, second: Tensor, temperature: float = 0.3, kept: Tensor | None = None) -> Tensor:
    """Return the decoupled hyperspherical energy loss of each sample. See :class:`DHELLoss`.

    Args:
        first: First view (N, D'); scaled to unit length here.
        second: Second view of the same samples (N, D').
        temperature: tau.
        kept: Which rows count (N,), bool; None for all.

    Returns:
        (N,); for a single sample the alignment alone.

    Example:
        >>> decoupled_info_nce(torch.eye(2), torch.eye(2), temperature=1.0).tolist()
        [-1.0, -1.0]
    """
    check_temperature(temperature)
    u, v = normalize(at_least_float32(first)), normalize(at_least_float32(second))
    aligned = (u * v).sum(1) / temperature
    if len(u) == 1:
        return -aligned
    return of_kept(_energy(u, temperature, kept) + _energy(v, temperature, kept) - aligned, kept)


def _energy(z: Tensor, temperature: float, kept: Tensor | None) -> Tensor:
    """Return log sum_{j != i} exp(z_i . z_j / tau) (N,) over the rows that count; 0 if there is no other."""
    positions = torch.arange(len(z), device=z.device)

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        others = among(rows[:, None] != positions, kept)
        energy = log_sum_exp(anchors @ z.T / temperature, others)
        return energy if kept is None else torch.where(others.any(1), energy, 0)

    return by_rows(per_anchor, z, len(z))


class DHELLoss(LossTerm):
    """Decoupled hyperspherical energy loss (DHEL): align the two views of an image, and spread each view.

    -u_i . v_i / tau + log sum_{j != i} exp(u_i . u_j / tau) + log sum_{j != i} exp(v_i . v_j / tau).

    It is InfoNCE whose negatives come from the anchor's own view. No term both pulls a pair together and pushes samples
    apart, so the optimum does not depend on the batch size, and small batches are enough. It uses no labels: beside a
    classification loss it keeps the samples of a class apart. u and v are the embedded features of the two views at
    unit length (see :class:`SupConLoss`). Source: Koromilas et al. 2024, with both views in turn as anchor and the pair
    counted once.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        temperature: tau.

    Raises:
        ValueError: If the temperature is not positive; when called, if the batch has one view.

    Example:
        >>> DHELLoss()
        DHELLoss(temperature=0.3)
    """

    over_batch = True

    views = 2

    def __init__(self, temperature: float = 0.3) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        values = decoupled_info_nce(*two_views(outputs, type(self).__name__), self.temperature, batch.kept)
        return kept_mean(values, batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"
