"""Supervised contrastive loss (SupCon) and its class-balanced form."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._pairwise import by_rows, log_sum_exp, mean_over, two_views
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def supervised_contrastive(embedded: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the supervised contrastive loss of each row of features among all others. See :class:`SupConLoss`.

    Memory is O(M D) and a few blocks of similarities, never (M, M).

    Args:
        embedded: The views of all samples, one after the other (M, D'); scaled to unit length here.
        labels: (M,), int64.
        temperature: tau.

    Returns:
        (M,); 0 for the only row of a class.

    Example:
        >>> supervised_contrastive(torch.eye(3), torch.tensor([0, 0, 1])).tolist()
        [0.6931471824645996, 0.6931471824645996, 0.0]
    """
    check_temperature(temperature)
    z = normalize(at_least_float32(embedded))
    positions = torch.arange(len(z), device=z.device)

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        scores = anchors @ z.T / temperature
        not_self = rows[:, None] != positions
        positive = not_self & (labels[rows][:, None] == labels)
        loss = log_sum_exp(scores, not_self) - mean_over(scores, positive)
        return torch.where(positive.any(1), loss, 0)

    return by_rows(per_anchor, z, len(z))


def balanced_supervised_contrastive(
    embedded: Tensor, labels: Tensor, centers: Tensor, temperature: float = 0.1
) -> Tensor:
    """Return the class-balanced supervised contrastive loss of each row. See :class:`BalancedSupConLoss`.

    Args:
        embedded: The views of all samples, one after the other (M, D').
        labels: (M,), int64.
        centers: A vector for each class (K, D'); scaled to unit length here, as the features are.
        temperature: tau.

    Returns:
        (M,).
    """
    check_temperature(temperature)
    z, centers = normalize(at_least_float32(embedded)), normalize(at_least_float32(centers))
    classes = torch.arange(len(centers), device=z.device)
    keys, key_labels = torch.cat([z, centers]), torch.cat([labels, classes])
    positions = torch.arange(len(keys), device=z.device)
    members = z.new_zeros(len(centers)).index_add(0, labels, torch.ones_like(labels, dtype=z.dtype))[key_labels]

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        scores = anchors @ keys.T / temperature
        not_self = rows[:, None] != positions
        same = labels[rows][:, None] == key_labels
        # The keys of a class are its center and its rows, without the anchor in its own class.
        size = torch.where(same, members, members + 1)
        return log_sum_exp(scores - size.log(), not_self) - mean_over(scores, not_self & same)

    return by_rows(per_anchor, z, len(keys))


class SupConLoss(LossTerm):
    """Supervised contrastive loss (SupCon): pick the samples of the same class out of the batch.

    -mean_{p in P(i)} log[exp(s_ip) / sum_{a != i} exp(s_ia)], s_ij = z_i . z_j / tau.

    It pulls the views of a class together and pushes all others apart, without class vectors. On balanced classes its
    optimum is a simplex as well. Both views are anchors and keys; P(i) are the other rows of the anchor's class.
    Source: Khosla et al. 2020, eq. 2 (the sum over positives outside the logarithm). Unlike there, z is the head's
    embedded feature at unit length, not the output of a projection network that is thrown away later: the loss shapes
    what the classifier reads (for a :class:`~nc_tools.heads.LinearHead` the features themselves). Class vectors get no
    gradient from it: with a learned head add a classification loss, in a :class:`~nc_tools.losses.WeightedSumLoss`.
    With several processes each contrasts its own batch.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        temperature: tau; .07 to .1 are usual.

    Raises:
        ValueError: If the temperature is not positive; when called, if the batch has one view.

    Example:
        >>> SupConLoss()
        SupConLoss(temperature=0.1)
    """

    views = 2

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over both views of the batch."""
        both = torch.cat(two_views(outputs, type(self).__name__))
        return supervised_contrastive(both, batch.labels.repeat(2), self.temperature).mean()

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"


class BalancedSupConLoss(LossTerm):
    """Balanced contrastive loss: SupCon in which every class has the same weight among the keys.

    -mean_{p in P(i)} log[exp(s_ip) / sum_k (1 / |A_k|) sum_{a in A_k} exp(s_ia)], with A_k the keys of class k: its
    rows other than the anchor, and its center; P(i) = A_{y_i}. Under a long tail plain SupCon mostly pushes the large
    classes apart, and small classes are missing from most batches. Dividing by |A_k| corrects the first, and the
    centers the second. Source: Zhu et al. 2022 (balanced contrastive learning). Unlike there, a class's center is its
    class vector in the head at unit length, not the output of another network, so this loss trains a learned weight as
    well; and z is the embedded feature (see :class:`SupConLoss`).

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        temperature: tau.

    Raises:
        ValueError: If the temperature is not positive; when called, if the batch has one view.

    Example:
        >>> BalancedSupConLoss(temperature=0.2).views
        2
    """

    views = 2

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over both views of the batch."""
        both = torch.cat(two_views(outputs, type(self).__name__))
        labels = batch.labels.repeat(2)
        return balanced_supervised_contrastive(both, labels, outputs.weight, self.temperature).mean()

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"
