"""Outliers at right angles to all class vectors."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses.loss_term import LossTerm, outliers_of
from nc_tools.records import Batch, Outputs


def orthogonal_outliers(outliers: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over classes of |cos(h, w_k)| for each outlier. See :class:`OrthogonalOutliersLoss`.

    Args:
        outliers: Embedded features of images of no class (M, D').
        weight: (K, D').

    Returns:
        (M,), in [0, 1].

    Example:
        >>> import torch
        >>> orthogonal_outliers(torch.tensor([[0.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0]])).tolist()
        [0.0, 1.0]
    """
    h = normalize(at_least_float32(outliers))
    return (h @ normalize(weight.to(h.dtype)).T).abs().mean(1)


class OrthogonalOutliersLoss(LossTerm):
    """Turn features of outliers away from all class vectors: mean over outliers and classes of |cos(h, w_k)|.

    Collapsed classes fill only K - 1 directions. This loss moves outliers to the other directions, where energy, NECO
    or a distance detects them. Use it beside a classification loss, usually in a short fine-tuning. Source: Wu et al.
    2024 (feature separation based on neural collapse). h is the embedded feature, in the space of the class vectors. A
    frame that fills the whole embedded space, of width K - 1, leaves no direction for outliers: use a wider space. To
    see whether the directions help, or only the outliers do, compare with
    :class:`~nc_tools.losses.OutlierExposureLoss` on the same outliers.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, with outliers (images of no class) in
    ``outputs.outliers``. A recipe names their source in ``data.outliers``; in a loop of your own
    :class:`nc_tools.data.WithOutliers` adds them to the batches.

    Example:
        >>> OrthogonalOutliersLoss()
        OrthogonalOutliersLoss()
    """

    needs_outliers = True

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the mean over the outliers.

        Raises:
            ValueError: If there are none.
        """
        return orthogonal_outliers(outliers_of(self, outputs).embedded, outputs.weight).mean()
