"""Outlier exposure: uniform predictions on images of no class."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses.loss_term import LossTerm, outliers_of
from nc_tools.records import Batch, Outputs


def outlier_exposure(logits: Tensor) -> Tensor:
    """Return the cross-entropy of each outlier to the uniform distribution. See :class:`OutlierExposureLoss`.

    Args:
        logits: Of images of no class (M, K).

    Returns:
        (M,), at least log K; log K where all logits are equal.

    Example:
        >>> import torch
        >>> outlier_exposure(torch.tensor([[1.0, 1.0], [8.0, 0.0]]))
        tensor([0.6931, 4.0003])
    """
    z = at_least_float32(logits, "logits")
    return z.logsumexp(1) - z.mean(1)


class OutlierExposureLoss(LossTerm):
    """Train for uniform predictions on images of no class: mean over outliers of -1/K sum_k log p_k.

    With logits z this is log sum_k e^{z_k} - mean_k z_k. It is the simplest way to train with outliers, and the
    baseline for every other one: what another loss gains on the same outliers is due to that loss only as far as it
    exceeds the gain of this one. Use it beside a classification loss, with a weight of .5 for images. Source: Hendrycks
    et al. 2019 (deep anomaly detection with outlier exposure), section 4, the form for multi-class classifiers. They
    trained with twice as many outliers as images; here the loader decides.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, with outliers (images of no class) in
    ``outputs.outliers``. A recipe names their source in ``data.outliers``; in a loop of your own
    :class:`nc_tools.data.WithOutliers` adds them to the batches.

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
