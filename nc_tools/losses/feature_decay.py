"""Feature decay: weight decay for features."""

from __future__ import annotations

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def feature_decay(features: Tensor) -> Tensor:
    """Return half the squared norm (N,) of each row of features (N, D). See :class:`FeatureDecayLoss`.

    Example:
        >>> import torch
        >>> feature_decay(torch.tensor([[3.0, 4.0]])).item()
        12.5
    """
    return at_least_float32(features).square().sum(1) / 2


class FeatureDecayLoss(LossTerm):
    """Feature decay: mean_i ||h_i||^2 / 2.

    The unconstrained-feature model has a decay of the weights and one of the features; this is the second. It also
    gives a gradient in the directions in which a fixed frame has none. It is the mean over the batch, and not the sum
    as in some public code, which would depend on the batch size and the number of processes. h are the backbone's
    features; after a head's normalization the loss would be constant. Source: the model of Zhu et al. 2021.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features.

    Example:
        >>> FeatureDecayLoss()
        FeatureDecayLoss()
    """

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        return kept_mean(feature_decay(outputs.features), batch.kept)
