"""Accuracy over all samples, averaged over classes, and in groups of frequent and rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores

Group = Literal["many", "medium", "few"]

# Liu, Miao, Zhan, Wang, Gong and Yu (2019): many-shot above 100 training samples, few-shot below 20.
MANY_ABOVE, FEW_BELOW = 100, 20


@dataclass(frozen=True)
class PerClass:
    """Recall, precision and number of samples of every class, in the order of the class indices.

    Attributes:
        recall: Share of the class's test samples that were classified correctly; None for a class without a test
            sample.
        precision: Share of the predictions of this class that were correct; None for a class that was never predicted.
        test_counts: Number of test samples.
        train_counts: Number of training samples.
        group: "many", "medium" or "few", by training samples.
    """

    recall: list[float | None]
    precision: list[float | None]
    test_counts: list[int]
    train_counts: list[int]
    group: list[Group]


def classification(logits: Tensor, labels: Tensor, train_counts: Tensor | Sequence[int]) -> dict[str, float]:
    """Return accuracy over all samples, averaged over classes, and in groups of frequent and rare classes.

        accuracy            share of samples whose largest logit is that of their class
        balanced_accuracy   mean recall over classes: the number to compare on long-tailed data
        macro_f1            mean over classes of 2 TP / (2 TP + FP + FN)
        worst_class         the smallest recall
        many, medium, few   mean recall of classes with > 100, 20 to 100, < 20 training samples
        head, middle, tail  mean recall of thirds of the classes, ordered by training samples

    Classes without a test sample are left out of all means, and a group without a class has no key. For the thirds,
    classes are ordered by falling training count, equal counts by class index. If K is not divisible by 3 the head has
    one class more, then the middle (7 classes: 3, 2, 2). If all counts are equal there are no keys for the thirds.

    Source of the thresholds: Liu et al. (2019), "Large-scale long-tailed recognition in an open world".

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        train_counts: Training samples of each class (K,). They alone define the groups; test counts do not.

    Returns:
        Shares in [0, 1] by name.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, there is no sample, a label is out of range, a logit is not finite or a
            training count is negative.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
        >>> values = classification(logits, torch.tensor([0, 0, 1, 1]), [500, 10])
        >>> values["balanced_accuracy"], values["many"], values["few"], "medium" in values
        (0.75, 1.0, 0.5, False)
    """
    scores, target = checked_scores(logits, labels)
    frequencies = _train_counts(train_counts, scores)
    right, tested, predicted = _class_counts(scores, target)
    present = tested > 0
    recall = right / tested.clamp(min=1)
    f1 = 2 * right / (tested + predicted).clamp(min=1)
    groups = {"balanced_accuracy": torch.ones_like(present)} | class_groups(frequencies, scores)
    members = torch.stack(list(groups.values())) & present
    numbers = torch.cat(
        [
            torch.stack([right.sum() / tested.sum(), f1[present].mean(), recall[present].min()]),
            (members * recall).sum(dim=1),
            members.sum(dim=1),
        ]
    ).tolist()
    sums, sizes = numbers[3 : 3 + len(groups)], numbers[3 + len(groups) :]
    means = {name: total / size for name, total, size in zip(groups, sums, sizes, strict=True) if size}
    return {"accuracy": numbers[0], "macro_f1": numbers[1], "worst_class": numbers[2]} | means


def per_class(logits: Tensor, labels: Tensor, train_counts: Tensor | Sequence[int]) -> PerClass:
    """Return recall, precision and number of samples of every class, ready for a table or a JSON file.

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        train_counts: Training samples of each class (K,).

    Returns:
        Lists of K entries.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: As ``classification``.

    Example:
        >>> table = per_class(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]), [500, 10])
        >>> table.recall, table.test_counts, table.group
        ([1.0, None], [2, 0], ['many', 'few'])
    """
    scores, target = checked_scores(logits, labels)
    frequencies = _train_counts(train_counts, scores)
    rows = torch.stack([*_class_counts(scores, target), frequencies.double()]).tolist()
    right, tested, predicted, trained = rows
    return PerClass(
        recall=[hits / total if total else None for hits, total in zip(right, tested, strict=True)],
        precision=[hits / total if total else None for hits, total in zip(right, predicted, strict=True)],
        test_counts=[int(count) for count in tested],
        train_counts=[int(count) for count in trained],
        group=[_group(count) for count in trained],
    )


def class_groups(train_counts: Tensor | Sequence[int], scores: Tensor) -> dict[str, Tensor]:
    """Return a mask over the classes (K,) for each of the groups many, medium, few and head, middle, tail.

    Args:
        train_counts: Training samples of each class (K,).
        scores: (N, K), read only for K and its device.

    Raises:
        ValueError: If there is not one count for each class, or a count is negative.
    """
    frequencies = _train_counts(train_counts, scores)
    return _by_threshold(frequencies) | _thirds(frequencies)


def _group(train_count: float) -> Group:
    if train_count > MANY_ABOVE:
        return "many"
    return "few" if train_count < FEW_BELOW else "medium"


def _train_counts(train_counts: Tensor | Sequence[int], scores: Tensor) -> Tensor:
    counts = torch.as_tensor(train_counts).to(scores.device)
    if counts.shape != scores.shape[1:]:
        raise ValueError(
            f"train_counts must hold one number for each of the {scores.shape[1]} classes, got the shape "
            f"{tuple(counts.shape)}"
        )
    if not bool((counts >= 0).all()):  # also false for NaN
        raise ValueError(f"train_counts must hold numbers of training samples from 0 up, got {counts.tolist()}")
    return counts


def _class_counts(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three counts for each class (K,), float64: correctly classified, present, and predicted samples."""
    guess = scores.argmax(dim=1)
    counts = torch.zeros(3, scores.shape[1], dtype=torch.float64, device=scores.device)
    ones = torch.ones(len(target), dtype=torch.float64, device=scores.device)
    counts[0].index_add_(0, target, (guess == target).double())
    counts[1].index_add_(0, target, ones)
    counts[2].index_add_(0, guess, ones)
    return counts[0], counts[1], counts[2]


def _by_threshold(train_counts: Tensor) -> dict[str, Tensor]:
    many, few = train_counts > MANY_ABOVE, train_counts < FEW_BELOW
    return {"many": many, "medium": ~(many | few), "few": few}


def _thirds(train_counts: Tensor) -> dict[str, Tensor]:
    num_classes = len(train_counts)
    rank = train_counts.argsort(descending=True, stable=True).argsort()
    uneven = train_counts.min() < train_counts.max()
    first, second = -(-num_classes // 3), -(-2 * num_classes // 3)
    return {
        "head": uneven & (rank < first),
        "middle": uneven & (rank >= first) & (rank < second),
        "tail": uneven & (rank >= second),
    }
