"""Outliers that should look like every class and none."""

from __future__ import annotations

from torch import Tensor

from nc_tools.losses.loss_term import LossTerm, outliers_of, widen
from nc_tools.records import Batch, Outputs


def outlier_exposure(logits: Tensor) -> Tensor:
    """Cross-entropy of each outlier to the uniform distribution. See :class:`OutlierExposureLoss`.

    Args:
        logits: Of images of no class (M, K).

    Returns:
        (M,), at least log K, which it is where all logits are the same.

    Example:
        >>> import torch
        >>> outlier_exposure(torch.tensor([[1.0, 1.0], [8.0, 0.0]]))
        tensor([0.6931, 4.0003])
    """
    z = widen(logits)
    return z.logsumexp(1) - z.mean(1)


class OutlierExposureLoss(LossTerm):
    """Ask for a uniform prediction on images of no class: mean over outliers of -1/K sum_k log p_k.

    With z the logits that is log sum_k e^{z_k} - mean_k z_k. The plain way to train against outliers, and the control
    for every other one: what a term gains beyond this one on the same outliers is its own merit, the rest is theirs. A
    term beside a classification loss, at weight .5 for images. Source: Hendrycks et al. 2019 (deep anomaly detection
    with outlier exposure), section 4, the form for multi-class classifiers; they trained on twice as many outliers as
    images, here the loader decides. Needs images of no class in ``batch.outliers``, which a recipe names by
    ``data.outliers`` and :class:`nc_tools.data.WithOutliers` gives in your own loop.

    Example:
        >>> OutlierExposureLoss()
        OutlierExposureLoss()
    """

    needs_outliers = True

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the mean over the outliers.

        Raises:
            ValueError: If there are none.
        """
        return outlier_exposure(outliers_of(self, outputs).logits).mean()
