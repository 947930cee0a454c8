"""Calibration in groups of frequent and rare classes; over all classes, the frequent ones decide the value."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nc_tools.metrics.accuracy import class_groups
from nc_tools.metrics.calibration.reliability import calibration
from nc_tools.metrics.checks import checked_scores


def grouped_calibration(logits: Tensor, labels: Tensor, train_counts: Tensor | Sequence[int]) -> dict[str, float]:
    """Return the calibration errors of the test samples in each group of frequent or rare classes.

    A model trained on a long tail is usually overconfident on the tail and underconfident on the head. The two errors
    cancel in the ECE over all samples. Groups are those of ``classification``: many, medium, few, and head, middle,
    tail. A sample's group is that of its *true* class, as for accuracy. Within a group a calibrated model need not have
    ECE 0, since the samples were selected by the label: compare a group between models, not with zero. A group without
    a sample has no key.

    Args:
        logits: (N, K), N >= 1.
        labels: (N,).
        train_counts: Training samples of each class (K,).

    Returns:
        "few/nll", "few/ece", and so on.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the counts do not match K, or as ``calibration``.

    Example:
        >>> import torch
        >>> values = grouped_calibration(torch.zeros(2, 2), torch.tensor([0, 1]), [500, 5])
        >>> sorted(key for key in values if key.endswith("ece"))
        ['few/ece', 'head/ece', 'many/ece', 'middle/ece']
    """
    scores, target = checked_scores(logits, labels)
    result: dict[str, float] = {}
    for name, members in class_groups(train_counts, scores).items():
        selected = members[target]
        if bool(selected.any()):
            result |= {f"{name}/{key}": value for key, value in calibration(scores[selected], target[selected]).items()}
    return result
