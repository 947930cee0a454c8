"""Rank all labels of a set by how likely they are wrong, and estimate how many are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_features
from nc_tools.metrics.label_noise.suspects import Suspects, rank_suspects
from nc_tools.metrics.label_noise.transition_estimates import confident_classes, confident_joint
from nc_tools.suspects.out_of_fold import held_out_logits, out_of_fold_logits, standardized


@dataclass(frozen=True, eq=False)
class FoundSuspects:
    """All labels of a set, ranked by how likely they are wrong; all tensors are on the CPU.

    Attributes:
        suspects: Scores and ranks by loss and by distance, and the class that the model suggests.
        disagreement: Share of the annotators who gave another label (N,), NaN where no annotator gave one; None without
            annotators.
        disagreement_rank: Rank by disagreement (N,); equal values share the mean of their ranks. None without
            annotators.
        order: Samples from the most to the least suspect by the weighted sum of all ranks (N,).
        joint: Estimated joint distribution of true class and given label (K, K), rows are true classes.
        wrong_by_class: Estimated number of wrong labels among the samples with each given label (K,). A label counts as
            wrong if confident learning is certain of another class and the model predicts another class.
        likely_wrong: Which samples to check (N,), bool: in each class the most suspect ones, as many as are estimated
            to be wrong.
        alone: Which samples have a class without other samples (N,), bool; with ``training``, without training samples.
            Nothing is known about these labels, and they are last in the order.
        strength: The inverse penalty strength C of the linear model.
        agreement: Share of the labels that the linear model predicts. If it is low, the estimates count its errors as
            wrong labels.
    """

    suspects: Suspects
    disagreement: Tensor | None
    disagreement_rank: Tensor | None
    order: Tensor
    joint: Tensor
    wrong_by_class: Tensor
    likely_wrong: Tensor
    alone: Tensor
    strength: float
    agreement: float


def find_suspects(
    features: Tensor,
    labels: Tensor,
    num_classes: int | None = None,
    *,
    annotations: Tensor | None = None,
    training: tuple[Tensor, Tensor] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> FoundSuspects:
    """Rank the labels of a set by how likely they are wrong, from features and given labels alone.

    Two ranks are added, or three if several people labeled the samples, with weights 2, 1 and 3:

    - the loss of the given label under a logistic regression that was not trained on the sample
      (:func:`~nc_tools.suspects.out_of_fold_logits`);
    - the distance to the mean of the given class minus that to the nearest other class mean
      (:func:`~nc_tools.metrics.rank_suspects`), which needs no training, so nothing can be memorized;
    - the share of annotators who gave another label.

    The loss ranks best if few labels are wrong, the distance if many are. The distance also flags fewer correct labels
    of rare classes. Several people together know more than both, so their disagreement has the weight of both. The
    weights were chosen on 6,000 images of CIFAR-10N, where they matter little (``benchmarks/suspects.py``).

    The number of wrong labels in each class is estimated by confident learning
    (:func:`~nc_tools.metrics.confident_classes`), counting only samples for which the model predicts another class.
    With much noise this number is too low, since confident learning is not certain of every sample. The joint
    distribution counts errors of the model as wrong labels.

    Args:
        features: (N, D), of a pretrained network, not standardized.
        labels: (N,), the given labels.
        num_classes: K; None for the largest label plus one.
        annotations: Labels of A other annotators (N, A), -1 where an annotator gave none.
        training: Features and labels of a training set, to rank the labels of a test set: the model and the class means
            are then those of the training set, and one fold is held out only to choose the penalty.
        folds: Number of folds.
        seed: Draws the folds.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, fewer than two classes have
            samples, every sample is alone in its class, or there are fewer samples than folds.

    Example:
        >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 5 * torch.eye(4)[torch.arange(60) % 3]
        >>> y = torch.arange(60) % 3
        >>> y[7] = 0  # wrong: it is of class 1
        >>> found = find_suspects(x, y)
        >>> int(found.order[0]), int(found.suspects.suggested[7]), int(found.wrong_by_class.sum())
        (7, 1, 1)
    """
    x, y, k = checked_features(features, labels, num_classes)
    trained_on = y if training is None else training[1]
    if len(trained_on) == 0 or int(trained_on.min()) == int(trained_on.max()):
        raise ValueError(
            "suspects need samples of at least two classes, got one: with one class no other label is possible"
        )
    if annotations is not None and (annotations.ndim != 2 or len(annotations) != len(y)):
        raise ValueError(f"annotations must have the shape ({len(y)}, A), got {tuple(annotations.shape)}")
    if training is None:
        inputs, reference = standardized(x), None
        counts = y.bincount(minlength=k)
        _check_known(y, counts)
        logits, strength = out_of_fold_logits(inputs, y, k, folds=folds, seed=seed)
    else:
        others, other_labels, _ = checked_features(*training, k)
        inputs, reference = standardized(x, others), (standardized(others), other_labels)
        counts = other_labels.bincount(minlength=k) + 1  # the sample itself is not among them
        _check_known(y, counts)
        logits, strength = held_out_logits(*reference, inputs, k, folds=folds, seed=seed)
    suspects = rank_suspects(inputs, logits, y, reference=reference)
    disagreement = None if annotations is None else _disagreement(annotations.cpu(), y.cpu())
    disagreement_rank = None if disagreement is None else _shared_ranks(disagreement.nan_to_num(nan=0.0))
    total = (2 * suspects.loss_rank + suspects.distance_rank).double()
    if disagreement_rank is not None:
        total += 3 * disagreement_rank
    alone = (counts[y] < 2).cpu()
    order = torch.where(alone, torch.inf, total).argsort(stable=True)
    joint, wrong = _estimates(logits, y, counts < 2)
    likely = _first_of_each_class(order, y.cpu(), wrong) & ~alone
    agreement = float((logits.argmax(1) == y).double().mean())
    return FoundSuspects(
        suspects, disagreement, disagreement_rank, order, joint, wrong, likely, alone, strength, agreement
    )


def _check_known(labels: Tensor, counts: Tensor) -> None:
    if bool((counts[labels] < 2).all()):
        raise ValueError(
            "suspects need a class with at least two samples, but each of these samples is alone in its class, so "
            "nothing is known about its label: add samples"
        )


def _estimates(logits: Tensor, labels: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
    """Return the joint distribution of true class and given label (K, K), and the number of wrong labels by class (K,).

    Classes of which nothing is known (``unknown``, (K,), bool) are left out: no model has learned such a class, so its
    threshold would be about 0, and every doubtful sample would pass it. Their labels are taken to be right.
    """
    kept = ~unknown[labels]
    scores = logits.double()
    scores[:, unknown] = scores.min() - 100
    given, certain = labels[kept].cpu(), confident_classes(scores[kept], labels[kept])
    wrong = (certain >= 0) & (certain != given) & (scores[kept].argmax(1).cpu() != given)
    joint = confident_joint(scores[kept], labels[kept]) * (int(kept.sum()) / len(labels))
    missing = labels[~kept].bincount(minlength=len(unknown)).cpu() / len(labels)
    return joint + torch.diag(missing.double()), given[wrong].bincount(minlength=len(unknown))


def _disagreement(annotations: Tensor, labels: Tensor) -> Tensor:
    """Return the share of a sample's annotators who gave another label (N,); NaN if it has none."""
    given = annotations >= 0
    other = given & (annotations != labels[:, None])
    share: Tensor = other.sum(1).double() / given.sum(1)
    return share


def _shared_ranks(scores: Tensor) -> Tensor:
    """Return the rank of each score (N,), 1 for the largest; equal scores share the mean of their ranks."""
    _, place, counts = torch.unique(-scores, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    ranks: Tensor = ((2 * last - counts + 1).double() / 2)[place]
    return ranks


def _first_of_each_class(order: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
    """Return which samples (N,) are among the first ``numbers[k]`` of their class k in an order."""
    ordered = labels[order]
    by_class = ordered.argsort(stable=True)
    counts = ordered.bincount(minlength=len(numbers))
    place = torch.empty_like(order)
    place[by_class] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[ordered[by_class]]
    first = torch.zeros(len(order), dtype=torch.bool)
    first[order] = place < numbers[ordered]
    return first
