"""Outliers at right angles to all classes."""

from __future__ import annotations

from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses.loss_term import LossTerm, outliers_of, widen
from nc_tools.records import Batch, Outputs


def orthogonal_outliers(outliers: Tensor, weight: Tensor) -> Tensor:
    """Mean over classes of |cos(h, w_k)| for each outlier. See :class:`OrthogonalOutliersLoss`.

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
    h = normalize(widen(outliers))
    return (h @ normalize(weight.to(h.dtype)).T).abs().mean(1)


class OrthogonalOutliersLoss(LossTerm):
    """Turn features of outliers away from every class vector: mean over outliers and classes of |cos(h, w_k)|.

    Collapsed classes fill K - 1 directions only; outliers are sent to the others, where energy, NECO or the distance
    tells them apart. A term beside a classification loss, usually in a short fine-tuning. Source: Wu et al. 2024
    (feature separation based on neural collapse). Needs images of no class in ``batch.outliers``, which a recipe names
    by ``data.outliers`` and :class:`nc_tools.data.WithOutliers` gives in your own loop; the training loop runs them
    through the model with the batch. h is the embedded feature, in the space of the class vectors. A frame that fills
    the whole embedded space, of width K - 1, leaves outliers nowhere to go: take a wider one. Whether the direction
    helps, or only the outliers do, is what :class:`~nc_tools.losses.OutlierExposureLoss` on the same ones tells.

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
