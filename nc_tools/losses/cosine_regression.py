"""Cosine regression: turn each feature to its class vector."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


def cosine_regression(own_score: Tensor) -> Tensor:
    """Return one minus the cosine of each sample. See :class:`CosineRegressionLoss`.

    Args:
        own_score: cos(w_y, h) of each sample (N,).

    Returns:
        (N,): 1 - cos(w_y, h).
    """
    return 1 - own_score


class CosineRegressionLoss(PerSampleLoss):
    """Cosine regression: 1 - cos(w_y, h), which turns each feature to its class vector.

    It is half the squared distance of the two unit vectors. :class:`~nc_tools.losses.DotRegressionLoss` of a
    normalizing head is (1 - cos)^2 / 2, with a slope of (1 - cos) sin(angle) in the angle. The slope here, sin(angle),
    stays larger as the feature comes near its class vector. It costs O(N D) and needs no logits, whatever K is.
    Hyperspherical prototype networks (Mettes et al. 2019) minimize its square.

    It is for fixed frames of unit vectors and heads that normalize. With other heads w_y . h has no upper bound, so the
    loss has no lower bound; with a learned weight the class vectors would merge.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features and class vectors.

    Example:
        >>> import torch
        >>> from nc_tools.heads import ETFHead
        >>> head = ETFHead(8, 3)
        >>> batch = Batch(-head.weight, torch.arange(3), torch.arange(3))
        >>> round(float(CosineRegressionLoss()(head.outputs(batch.inputs), batch)), 4)
        2.0
    """

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return one minus the cosine of each sample (N,)."""
        return cosine_regression(at_least_float32(outputs.label_scores(batch.labels)))
