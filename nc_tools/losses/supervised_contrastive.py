"""Supervised contrastive loss (SupCon) and its class-balanced form."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._pairwise import among, by_rows, log_sum_exp, mean_over, of_kept, two_views
from nc_tools.losses._rows import kept_mean, labeled
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def supervised_contrastive(
    embedded: Tensor, labels: Tensor, temperature: float = 0.1, kept: Tensor | None = None
) -> Tensor:
    """Return the supervised contrastive loss of each row of features among all others. See :class:`SupConLoss`.

    Memory is that of O(M D) numbers and a few blocks of similarities, never of an M x M matrix.

    Args:
        embedded: One row for each view of each sample (M, D'), in any order; scaled to unit length here.
        labels: (M,). Rows with the label -100 do not count.
        temperature: tau.
        kept: Which rows count (M,), bool; None for all with a label.

    Returns:
        (M,); 0 for the only row of a class.

    Example:
        >>> supervised_contrastive(torch.eye(3), torch.tensor([0, 0, 1])).tolist()
        [0.6931471824645996, 0.6931471824645996, 0.0]
    """
    check_temperature(temperature)
    kept = labeled(labels, kept)
    z = normalize(at_least_float32(embedded))
    positions = torch.arange(len(z), device=z.device)

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        scores = anchors @ z.T / temperature
        others = among(rows[:, None] != positions, kept)
        positive = others & (labels[rows][:, None] == labels)
        loss = log_sum_exp(scores, others) - mean_over(scores, positive)
        return torch.where(positive.any(1), loss, 0)

    return of_kept(by_rows(per_anchor, z, len(z)), kept)


def balanced_supervised_contrastive(
    embedded: Tensor, labels: Tensor, centers: Tensor, temperature: float = 0.1, kept: Tensor | None = None
) -> Tensor:
    """Return the class-balanced supervised contrastive loss of each row. See :class:`BalancedSupConLoss`.

    Args:
        embedded: One row for each view of each sample (M, D'), in any order; scaled to unit length here.
        labels: (M,). Rows with the label -100 do not count.
        centers: A vector for each class (K, D'); scaled to unit length here.
        temperature: tau.
        kept: Which rows count (M,), bool; None for all with a label.

    Returns:
        (M,).
    """
    check_temperature(temperature)
    kept = labeled(labels, kept)
    z, centers = normalize(at_least_float32(embedded)), normalize(at_least_float32(centers))
    classes = torch.arange(len(centers), device=z.device)
    valid, ones = labels.long(), torch.ones_like(labels, dtype=z.dtype)
    are_keys = None
    if kept is not None:
        valid, ones = torch.where(kept, valid, 0), kept.to(z.dtype)
        are_keys = torch.cat([kept, torch.ones_like(classes, dtype=torch.bool)])
    keys, key_labels = torch.cat([z, centers]), torch.cat([valid, classes])
    positions = torch.arange(len(keys), device=z.device)
    members = z.new_zeros(len(centers)).index_add(0, valid, ones)[key_labels]

    def per_anchor(anchors: Tensor, rows: Tensor) -> Tensor:
        scores = anchors @ keys.T / temperature
        others = among(rows[:, None] != positions, are_keys)
        same = valid[rows][:, None] == key_labels
        # The keys of a class are its center and its rows, without the anchor in its own class.
        size = torch.where(same, members, members + 1)
        if kept is not None:  # the class of an anchor that does not count may be empty
            size = size.clamp(min=1)
        return log_sum_exp(scores - size.log(), others) - mean_over(scores, others & same)

    return of_kept(by_rows(per_anchor, z, len(keys)), kept)


class SupConLoss(LossTerm):
    """Supervised contrastive loss (SupCon): pick the samples of the same class out of the batch.

    -mean_{p in P(i)} log[exp(s_ip) / sum_{a != i} exp(s_ia)], s_ij = z_i . z_j / tau.

    It moves the views of a class together and away from all others, without class vectors. On balanced classes its
    optimum is a simplex as well. Both views are anchors and keys; P(i) are the other rows of the anchor's class.
    Source: Khosla et al. 2020, eq. 2 (the sum over positives outside the logarithm). There z is the output of a
    projection network that is not used after training. Here z is the head's embedded feature at unit length, which the
    classifier reads (for a :class:`~nc_tools.heads.LinearHead` the features themselves). Class vectors get no gradient
    from it: with a learned head add a classification loss, in a :class:`~nc_tools.losses.WeightedSumLoss`. With several
    processes, anchors and keys are the samples of all of them.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        temperature: tau; .07 to .1 are usual.

    Raises:
        ValueError: If the temperature is not positive; when called, if the batch has one view.

    Example:
        >>> SupConLoss()
        SupConLoss(temperature=0.1)
    """

    over_batch = True

    views = 2

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over both views of the samples that count."""
        both = torch.cat(two_views(outputs, type(self).__name__))
        kept = None if batch.kept is None else batch.kept.repeat(2)
        return kept_mean(supervised_contrastive(both, batch.labels.repeat(2), self.temperature, kept), kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"


class BalancedSupConLoss(LossTerm):
    """Balanced contrastive loss: SupCon in which every class has the same weight among the keys.

    -mean_{p in P(i)} log[exp(s_ip) / sum_k (1 / |A_k|) sum_{a in A_k} exp(s_ia)], with A_k the keys of class k: its
    rows other than the anchor, and its center; P(i) = A_{y_i}. Under a long tail plain SupCon mostly moves the large
    classes apart, and small classes are missing from most batches. Dividing by |A_k| corrects the first, and the
    centers correct the second. Source: Zhu et al. 2022 (balanced contrastive learning). There a class's center is the
    output of another network. Here it is the head's class vector at unit length, so this loss trains a learned weight
    as well; and z is the embedded feature (see :class:`SupConLoss`).

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads the features of two views.

    Args:
        temperature: tau.

    Raises:
        ValueError: If the temperature is not positive; when called, if the batch has one view.

    Example:
        >>> BalancedSupConLoss(temperature=0.2).views
        2
    """

    over_batch = True

    views = 2

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean loss over both views of the samples that count."""
        both, labels = torch.cat(two_views(outputs, type(self).__name__)), batch.labels.repeat(2)
        kept = None if batch.kept is None else batch.kept.repeat(2)
        values = balanced_supervised_contrastive(both, labels, outputs.weight, self.temperature, kept)
        return kept_mean(values, kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"
