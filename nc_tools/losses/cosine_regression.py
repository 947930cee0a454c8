"""Cosine regression towards a fixed frame."""

from __future__ import annotations

from torch import Tensor

from nc_tools.losses.loss_term import widen
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


def cosine_regression(own_score: Tensor) -> Tensor:
    """Distance of a cosine from one, per sample. See :class:`CosineRegressionLoss`.

    Args:
        own_score: cos(w_y, h) (N,).

    Returns:
        (N,): 1 - cos(w_y, h).
    """
    return 1 - own_score


class CosineRegressionLoss(PerSampleLoss):
    """Turn each feature to its own class vector: 1 - cos(w_y, h).

    Half the squared distance of the two unit vectors. :class:`~nc_tools.losses.DotRegressionLoss` of a normalizing head
    is (1 - cos)^2 / 2, whose pull fades as the feature comes near; here the pull depends on the angle alone,
    sin(angle), and lasts longer. O(N D), no logits, whatever K is. Hyperspherical prototype networks (Mettes et al.
    2019) minimize its square.

    For fixed frames of unit vectors and heads that normalize: elsewhere w_y . h has no upper bound, and the loss no
    lower one; and a learned weight would let its class vectors merge.

    Example:
        >>> import torch
        >>> from nc_tools.heads import ETFHead
        >>> head = ETFHead(8, 3)
        >>> batch = Batch(-head.weight, torch.arange(3), torch.arange(3))
        >>> round(float(CosineRegressionLoss()(head.outputs(batch.inputs), batch)), 4)
        2.0
    """

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the distance of each sample's cosine from one (N,)."""
        return cosine_regression(widen(outputs.label_scores(batch.labels)))
