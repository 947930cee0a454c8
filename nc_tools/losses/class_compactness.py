"""Within-class variability (NC1) as a loss: features close to their class center."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.losses._class_centers import ClassCenters
from nc_tools.losses._distributed import process_count
from nc_tools.losses._rows import labeled
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def class_compactness(
    features: Tensor, labels: Tensor, centers: Tensor, counts: Tensor | None = None, kept: Tensor | None = None
) -> Tensor:
    """Return the mean over classes of the mean squared distance of a class's features to its center.

    See :class:`ClassCompactnessLoss`.

    Args:
        features: (N, D).
        labels: Class indices (N,). Samples with the label -100 do not count.
        centers: (K, D).
        counts: The number of samples by which each class's sum is divided (K,). None: those of the batch.
        kept: Which samples count (N,), bool; None for all with a label.

    Returns:
        (1 / K) sum_k (1 / n_k) sum_{i: y_i = k} ||h_i - c_k||^2, a scalar; a class without a sample gives 0.

    Example:
        >>> import torch
        >>> h, y = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])
        >>> class_compactness(h, y, torch.tensor([[2.0], [4.0], [9.0], [9.0]])).item()
        0.5
    """
    kept = labeled(labels, kept)
    labels = labels.long() if kept is None else torch.where(kept, labels, 0).long()
    if counts is None:
        ones = features.new_ones(len(labels)) if kept is None else kept.to(features.dtype)
        counts = features.new_zeros(len(centers)).index_add(0, labels, ones)
    squares = (features - centers.index_select(0, labels)).square().sum(1)
    if kept is not None:
        squares, counts = torch.where(kept, squares, 0), counts.clamp(min=1)
    return (squares / counts.index_select(0, labels)).sum() / len(centers)


class ClassCompactnessLoss(LossTerm):
    """Within-class variability (NC1) as a loss: the squared distance of features to their class center.

    (1 / K) sum_k mean_{i in k} ||h_i - c_k||^2, with c_k the class centers, which are moving averages.

    Every class has the same weight, whatever its share of the data: under a long tail cross-entropy compacts the large
    classes and hardly the small ones. Source: Liu et al. 2023 (inducing neural collapse in deep long-tailed learning),
    with a weight of .01 beside cross-entropy (.1 on ImageNet-LT). h are the backbone's features, before the head's
    projection and normalization: those that ``nc/nc1_*`` measures. :class:`~nc_tools.losses.FeatureEntropyLoss` does
    the opposite. For the centers see :class:`~nc_tools.losses.ClassCenters`; beside
    :class:`~nc_tools.losses.ClassSpreadLoss` each loss keeps its own.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features.

    Args:
        feature_dim: D. A run fills it in.
        num_classes: K. A run fills it in.
        momentum: Of the centers.

    Raises:
        ValueError: If the momentum lies outside [0, 1).

    Example:
        >>> ClassCompactnessLoss(8, 3).centers
        ClassCenters(num_classes=3, feature_dim=8, momentum=0.9)
    """

    def __init__(self, feature_dim: int, num_classes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.centers = ClassCenters(num_classes, feature_dim, momentum)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over all K classes; classes without a sample in the batch count as 0."""
        features = at_least_float32(outputs.features)
        centers, _, counts = self.centers(features, batch.labels, batch.kept)
        # Each process divides its own sum by the counts of all, and gradients are averaged over processes: the factor
        # undoes the average.
        return process_count() * class_compactness(features, batch.labels, centers, counts, batch.kept)
