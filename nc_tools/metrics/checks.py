"""What the measures of logits and of transfer ask of their input, asked in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import at_least_float32, check_pair, check_tensors


def checked_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) in float32 or float64 and labels (N,) in int64 on the same device, both checked.

    Args:
        logits: (N, K), any floating type. They are never taken for probabilities, whatever their range.
        labels: (N,), integers in [0, K).

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, there is no sample, a label is out of range or a logit is not
            finite.
    """
    check_tensors({"logits": logits, "labels": labels})
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point scores before the softmax, got {logits.dtype}")
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must have the shape (N, K), got {tuple(logits.shape)}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have the shape ({len(logits)},) to fit the logits, got {tuple(labels.shape)}")
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {labels.dtype}")
    if len(labels) == 0:
        raise ValueError("a measure needs at least one sample, got none")
    scores = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
    target = labels.to(scores.device).long()
    outside = ((target < 0) | (target >= scores.shape[1])).sum()
    broken = (~scores.isfinite().all(dim=1)).sum()
    outside_count, broken_count = torch.stack([outside, broken]).tolist()
    if outside_count:
        raise ValueError(f"labels must lie in [0, {scores.shape[1]}), but {outside_count} of them do not")
    if broken_count:
        raise ValueError(f"logits must be finite, but {broken_count} of {len(scores)} samples hold NaN or inf")
    return scores, target


def checked_bins(num_bins: int) -> int:
    """Return the number of bins, which must be at least 1."""
    if not isinstance(num_bins, int) or num_bins < 1:
        raise ValueError(f"num_bins must be a whole number, at least 1, got {num_bins!r}: 15 is usual")
    return num_bins


def check_finite(name: str, values: Tensor) -> None:
    """Refuse rows that hold NaN or inf, and count them.

    Raises:
        TypeError: If the values are not floating-point.
        ValueError: If one is not finite.
    """
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {values.dtype}")
    bad = int((~values.isfinite().flatten(1).all(dim=1)).sum())
    if bad:
        raise ValueError(f"{name} must be finite, but {bad} of {len(values)} rows hold NaN or inf")


def checked_bank(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check the samples that a reader of features is fitted to, and number their classes from 0.

    Args:
        features: (N, D).
        labels: (N,), any integers.

    Returns:
        Features of at least float32, labels from 0 to K - 1 by rising value, and the K values, all on one device.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, there are fewer than two classes, or features are not finite.
    """
    check_pair(features, labels)
    bank = at_least_float32(features.detach())
    given = labels.to(bank.device).contiguous()
    ordered = given.sort().values
    known = ordered[ordered.diff(prepend=ordered[:1] - 1) != 0]
    if len(known) < 2:
        raise ValueError(
            f"a transfer set needs samples of at least two classes, got {len(given)} samples of {len(known)}: "
            "there is nothing to tell apart"
        )
    _check_finite("training", bank)
    return bank, torch.searchsorted(known, given), known


def checked_sets(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Check a training and a test part, number the classes from 0, and bring all to one device and type.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.

    Returns:
        The four, with labels from 0 to K - 1 by rising value, and K.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, there are fewer than two classes or no test sample, features are not
            finite, or a test label was not seen in training.
    """
    check_pair(train_features, train_labels)
    check_pair(test_features, test_labels)
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"training and test features must be equally wide, got {train_features.shape[1]} and "
            f"{test_features.shape[1]}"
        )
    bank, place, known = checked_bank(train_features, train_labels)
    queries = at_least_float32(test_features.detach()).to(bank)
    asked = test_labels.to(bank.device, known.dtype).contiguous()
    if len(asked) == 0:
        raise ValueError("a transfer set needs a test sample, got none")
    answers = torch.searchsorted(known, asked).clamp(max=len(known) - 1)
    unseen = asked[known[answers] != asked]
    if len(unseen):
        names = ", ".join(str(label) for label in sorted(set(unseen.tolist()))[:5])
        raise ValueError(
            f"test labels must be classes of the training part, but {len(unseen)} are not ({names}): "
            "take their samples out or give training samples of them"
        )
    _check_finite("test", queries)
    return bank, place, queries, answers, len(known)


def checked_features(features: Tensor, labels: Tensor, num_classes: int | None) -> tuple[Tensor, Tensor, int]:
    """Return features (N, D) in float32 or float64, labels (N,) on their device, and K, all checked.

    Args:
        features: (N, D), any floating type.
        labels: (N,), integers in [0, K).
        num_classes: K; None for the largest label plus one.

    Raises:
        TypeError: If the labels are not integers or the features not floating-point.
        ValueError: If shapes do not fit, there is no sample, a label is out of range or a feature is not finite.
    """
    check_pair(features, labels)
    x = at_least_float32(features.detach())
    if len(x) == 0:
        raise ValueError("a measure needs at least one sample, got none")
    y = labels.to(x.device).long()
    number = int(y.max()) + 1 if num_classes is None else num_classes
    outside, bad = torch.stack([((y < 0) | (y >= number)).sum(), (~x.isfinite().all(dim=1)).sum()]).tolist()
    if outside:
        raise ValueError(f"labels must lie in [0, {number}), but {outside} of them do not")
    if bad:
        raise ValueError(f"features must be finite, but {bad} of {len(x)} samples hold NaN or inf: repair them")
    return x, y, number


def _check_finite(name: str, features: Tensor) -> None:
    bad = int((~features.isfinite().all(dim=1)).sum())
    if bad:
        raise ValueError(f"features must be finite, but {bad} {name} samples hold NaN or inf")
