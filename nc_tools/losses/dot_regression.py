"""Dot regression: move each feature to its class vector."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.per_sample import PerSampleLoss, class_mean
from nc_tools.records import Batch, Outputs


def dot_regression(own_score: Tensor, weight_norm: float = 1.0, feature_norm: float = 1.0) -> Tensor:
    """Return the squared distance of w_y . h from its largest value t, over 2 t. See :class:`DotRegressionLoss`.

    Args:
        own_score: w_y . h (N,).
        weight_norm: ||w_k||.
        feature_norm: The norm to which features are scaled.

    Returns:
        (N,): (w_y . h - t)^2 / (2 t), t = weight_norm * feature_norm.
    """
    target = weight_norm * feature_norm
    return (own_score - target).square() / (2 * target)


class DotRegressionLoss(PerSampleLoss):
    """Dot regression: (w_y . h - t)^2 / (2 t), which moves a feature to its class vector, not away from others.

    Here t = ||w|| ||h||, the largest value that w_y . h can take.

    It is for fixed frames, which already keep the classes apart. Cross-entropy also moves a feature away from the other
    class vectors, unequally on imbalanced data; this loss does not. It needs w_y alone, so it costs O(N D) and needs no
    logits, whatever K is. Source: Yang et al. 2022, eq. 8, with t = sqrt(E_W E_H); h is the feature after the head's
    projection and normalization. Do not use it with a learned weight: nothing would keep its class vectors apart.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features and class vectors.

    The released code of that paper computes another loss. With its default ``GivenEw`` it multiplies each class vector
    by sqrt(N / (P c_y)), with c_y the number of samples of the class and P the number of classes in the batch of N. The
    square makes the factor N / (P c_y), and the loss the mean over the classes of the batch instead of over its
    samples. That is ``mean_over="classes"`` here: use it to repeat those runs, or to balance the classes in a batch.

    Args:
        weight_norm: ||w_k||; 1 for every frame of this package.
        feature_norm: ||h||; 1 for a head that normalizes.
        mean_over: "samples", as in the paper, or "classes", as in the released code.

    Raises:
        ValueError: If a norm is not positive, or ``mean_over`` is something else.

    Example:
        >>> import torch
        >>> from nc_tools.heads import ETFHead
        >>> head = ETFHead(8, 3)
        >>> batch = Batch(head.weight.clone(), torch.arange(3), torch.arange(3))
        >>> bool(DotRegressionLoss()(head.outputs(batch.inputs), batch) < 1e-12)
        True
    """

    def __init__(
        self,
        weight_norm: float = 1.0,
        feature_norm: float = 1.0,
        mean_over: Literal["samples", "classes"] = "samples",
    ) -> None:
        super().__init__()
        if not (0 < weight_norm < math.inf and 0 < feature_norm < math.inf):
            raise ValueError(
                f"norms must be positive and finite, got weight_norm={weight_norm}, feature_norm={feature_norm}"
            )
        if mean_over not in ("samples", "classes"):
            raise ValueError(f"mean_over must be 'samples' or 'classes', got {mean_over!r}")
        self.weight_norm = weight_norm
        self.feature_norm = feature_norm
        self.mean_over = mean_over

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""
        own_score = at_least_float32(outputs.label_scores(batch.labels))
        return dot_regression(own_score, self.weight_norm, self.feature_norm)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over the samples that count, or over their classes."""
        values = self.compute_per_sample(outputs, batch)
        if self.mean_over == "samples":
            return kept_mean(values, batch.kept)
        return class_mean(values, batch.labels, outputs.weight.shape[0], batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"weight_norm={self.weight_norm}, feature_norm={self.feature_norm}, mean_over={self.mean_over!r}"
