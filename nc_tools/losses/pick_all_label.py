"""Pick-all-label cross-entropy for images with several labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._rows import kept_mean
from nc_tools.losses.feature_decay import feature_decay
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def pick_all_label(logits: Tensor, tags: Tensor) -> Tensor:
    """Return the cross-entropy summed over all labels of each sample. See :class:`PickAllLabelLoss`.

    Args:
        logits: (N, K).
        tags: Which classes are in the sample (N, K), bool.

    Returns:
        sum_{k in tags_i} -log softmax(z_i)_k (N,); 0 for a sample without a tag.

    Raises:
        TypeError: If the tags are not bool or not of the logits' shape.

    Example:
        >>> pick_all_label(torch.zeros(1, 2), torch.tensor([[True, True]])).item() / 2 == torch.tensor(2.0).log().item()
        True
    """
    if tags.dtype != torch.bool or tags.shape != logits.shape:
        raise TypeError(
            f"tags must be bool of shape {tuple(logits.shape)}, got {tags.dtype} of shape {tuple(tags.shape)}. Pass "
            f"tags > 0 for counts or shares, and one_hot(labels, K).bool() for single labels."
        )
    return -torch.where(tags, at_least_float32(logits, "logits").log_softmax(1), 0).sum(1)


class PickAllLabelLoss(LossTerm):
    """Pick-all-label loss for multi-label images: sum_{k in tags_i} -log p_k + decay * ||h_i||^2.

    The loss is the sum of the cross-entropies with each of the sample's labels as the only one. Its optimum is a
    collapse too: features of images with one label go to the vertices of a simplex, and those with several labels to
    scaled averages of these vertices. Source: Li et al. 2023. Their model includes the decay of features; the default
    here is 0.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads ``batch.tags``, the labels of each
    sample, and features. For a batch without tags ``batch.labels`` are the only tags, and the loss is cross-entropy.

    Args:
        decay: lambda, weight of mean_i ||h_i||^2, h the backbone's features.

    Raises:
        ValueError: If ``decay`` is negative or not finite.

    Example:
        >>> PickAllLabelLoss(decay=5e-4)
        PickAllLabelLoss(decay=0.0005)
    """

    def __init__(self, decay: float = 0.0) -> None:
        super().__init__()
        if not 0 <= decay < math.inf:
            raise ValueError(f"decay must be finite and not negative, got {decay}")
        self.decay = decay

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss of the samples that count."""
        logits = outputs.logits
        if batch.tags is None:
            z = at_least_float32(logits, "logits")
            each = nn.functional.cross_entropy(z, batch.labels, reduction="none")
        else:
            each = pick_all_label(logits, batch.tags)
        # Left out if it is 0: zero times a feature that is not finite would be NaN.
        if self.decay:
            each = each + 2 * self.decay * feature_decay(outputs.features)
        return kept_mean(each, batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"decay={self.decay}"
