"""Coverage and size of prediction sets, and accuracy of the surest predictions, by group of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.metrics.accuracy import class_groups
from nc_tools.metrics.checks import checked_scores

_LOW_COVERAGE = 0.8


def class_coverage(sets: Tensor, labels: Tensor) -> Tensor:
    """Return the coverage of each class, the share of its samples whose set holds the label: (K,), float64.

    nan for a class without samples.

    Args:
        sets: Which classes each set holds, a mask (N, K).
        labels: (N,).

    Example:
        >>> class_coverage(torch.tensor([[True, True], [True, False]]), torch.tensor([0, 0])).tolist()
        [1.0, nan]
    """
    target = labels.to(sets.device).long()
    covered = sets.gather(1, target[:, None]).squeeze(1).double()
    of_class = torch.zeros(2, sets.shape[1], dtype=torch.float64, device=sets.device)
    of_class.index_add_(1, target, torch.stack([covered, torch.ones_like(covered)]))
    return of_class[0] / of_class[1]


def set_measures(sets: Tensor, labels: Tensor, class_counts: Tensor | Sequence[int]) -> dict[str, float]:
    """Return coverage and mean size of prediction sets, over all samples and in each group of classes.

        coverage, size           share of sets that hold the label; mean number of classes in a set
        coverage_balanced        mean of the coverages of the classes
        coverage_worst           lowest coverage of a class
        classes_low              share of the classes with a coverage below 80 %
        coverage_GROUP, size_GROUP  coverage and size over the samples whose class is in GROUP: many, medium, few;
                                    head, middle, tail

    Classes and groups without a sample are left out.

    Args:
        sets: Which classes each set holds, a mask (N, K).
        labels: (N,).
        class_counts: Training samples of each class (K,).

    Example:
        >>> values = set_measures(torch.tensor([[True, True], [True, False]]), torch.tensor([0, 1]), [500, 5])
        >>> values["coverage"], values["size"], values["coverage_few"], values["coverage_worst"]
        (0.5, 1.5, 0.0, 0.0)
    """
    target = labels.to(sets.device).long()
    covered = sets.gather(1, target[:, None]).squeeze(1).double()
    size = sets.sum(dim=1).double()
    of_class = class_coverage(sets, labels)
    coverage = of_class[of_class.isfinite()]
    values = {
        "coverage": covered.mean(),
        "size": size.mean(),
        "coverage_balanced": coverage.mean(),
        "coverage_worst": coverage.min(),
        "classes_low": (coverage < _LOW_COVERAGE).double().mean(),
    }
    for name, members in class_groups(class_counts, sets).items():
        selected = members[target]
        if bool(selected.any()):
            values |= {f"coverage_{name}": covered[selected].mean(), f"size_{name}": size[selected].mean()}
    return {key: float(value) for key, value in values.items()}


def selective_accuracy(
    logits: Tensor, labels: Tensor, class_counts: Tensor | Sequence[int], share: float = 0.8
) -> dict[str, float]:
    """Return the accuracy of the surest predictions, and which classes they leave out.

        accuracy, accuracy_GROUP  share of correct predictions among those that are kept
        kept_GROUP                share of the samples of the group that is kept: rare classes are often left out

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        class_counts: Training samples of each class (K,).
        share: Share of the predictions that is kept: those with the largest top-label probability.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the share is not in (0, 1], or as ``classification``.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [3.0, 0.0], [0.0, 0.1], [0.0, 2.0]])
        >>> values = selective_accuracy(logits, torch.tensor([0, 0, 0, 1]), [500, 5], share=0.75)
        >>> values["accuracy"], values["kept_few"]
        (1.0, 1.0)
    """
    scores, target = checked_scores(logits, labels)
    if not 0 < share <= 1:
        raise ValueError(f"share, the part of the predictions that is kept, must be above 0 and at most 1, got {share}")
    confidence = scores.double().log_softmax(dim=1).amax(dim=1)
    kept = torch.zeros_like(target, dtype=torch.bool)
    kept[confidence.argsort(descending=True, stable=True)[: max(1, round(share * len(target)))]] = True
    right = scores.argmax(dim=1) == target
    values = {"accuracy": right[kept].double().mean()}
    for name, members in class_groups(class_counts, scores).items():
        selected = members[target]
        if bool(selected.any()):
            values[f"kept_{name}"] = kept[selected].double().mean()
        if bool((selected & kept).any()):
            values[f"accuracy_{name}"] = right[selected & kept].double().mean()
    return {key: float(value) for key, value in values.items()}
