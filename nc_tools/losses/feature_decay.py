"""Weight decay's counterpart for features."""

from __future__ import annotations

from torch import Tensor

from nc_tools.losses.loss_term import LossTerm, widen
from nc_tools.records import Batch, Outputs


def feature_decay(features: Tensor) -> Tensor:
    """Half the squared norm of each feature (N,). See :class:`FeatureDecayLoss`.

    Example:
        >>> import torch
        >>> feature_decay(torch.tensor([[3.0, 4.0]])).item()
        12.5
    """
    return widen(features).square().sum(1) / 2


class FeatureDecayLoss(LossTerm):
    """Feature decay: mean_i ||h_i||^2 / 2.

    The second half of the unconstrained-feature model, where weights and features decay alike; it also gives a gradient
    to those directions in which a fixed frame has none. The mean over the batch, not the sum of some public code, which
    changes strength with batch size and processes. h are the backbone's features: behind a head that normalizes
    anything else would be constant. Source: the model of Zhu et al. 2021.

    Example:
        >>> FeatureDecayLoss()
        FeatureDecayLoss()
    """

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the mean over the batch."""
        return feature_decay(outputs.features).mean()
