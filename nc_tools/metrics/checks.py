"""Check the tensors that metrics take."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.labels import check_features_and_labels, check_labels, check_tensors
from nc_tools._support.precision import at_least_float32


def checked_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Check logits and labels, and return them on one device: logits in float32 or float64, labels in int64.

    Args:
        logits: (N, K), any floating type. They are read as scores before the softmax, never as probabilities.
        labels: (N,), integers in [0, K).

    Raises:
        TypeError: If the logits are not floating-point, or the labels are not integers.
        ValueError: If the shapes do not fit, there is no sample, a label is out of range, or a logit is not finite.
    """
    check_tensors({"logits": logits})
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point scores before the softmax, got {logits.dtype}")
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must have the shape (N, K), got {tuple(logits.shape)}")
    check_labels(labels, logits.shape[0])
    if len(labels) == 0:
        raise ValueError("a metric needs at least one sample, got none")
    scores = at_least_float32(logits.detach(), "logits")
    target = labels.to(scores.device).long()
    if outside := int(((target < 0) | (target >= scores.shape[1])).sum()):
        raise ValueError(f"labels must lie in [0, {scores.shape[1]}), but {outside} of them do not")
    if bad := count_bad_rows(scores):
        raise ValueError(
            f"logits must be finite, but {bad} of {len(scores)} samples hold NaN or inf: remove these "
            "samples, or check the model that produced them"
        )
    return scores, target


def checked_bins(num_bins: int) -> int:
    """Check that a number of bins is an integer of at least 1, and return it.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(num_bins, int) or num_bins < 1:
        raise ValueError(f"num_bins must be a whole number, at least 1, got {num_bins!r}. 15 is usual.")
    return num_bins


def check_finite(name: str, values: Tensor) -> None:
    """Check that a floating-point tensor holds no NaN or inf.

    Raises:
        TypeError: If the values are not floating-point.
        ValueError: If a row holds NaN or inf.
    """
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {values.dtype}: convert them with .float()")
    bad_rows = count_bad_rows(values)
    if bad_rows:
        raise ValueError(
            f"{name} must be finite, but {bad_rows} of {len(values)} rows hold NaN or inf: remove these rows, or check "
            "the model that produced them"
        )


def checked_bank(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check the training features and labels of a probe, and renumber their classes from 0.

    Args:
        features: (N, D).
        labels: (N,), any integers.

    Returns:
        The features in float32 or float64 (N, D); the labels as 0 to K - 1, in the order of their values (N,); and
        the values themselves (K,). All on the features' device.

    Raises:
        TypeError: If the labels are not integers, or the features not floating-point.
        ValueError: If the shapes do not fit, there are fewer than two classes, or a feature is not finite.
    """
    check_features_and_labels(features, labels)
    bank = at_least_float32(features.detach())
    values = labels.to(bank.device).contiguous()
    ordered = values.sort().values
    classes = ordered[ordered.diff(prepend=ordered[:1] - 1) != 0]
    if len(classes) < 2:
        raise ValueError(
            f"a transfer set needs samples of at least two classes, got {len(classes)} in {len(values)} samples"
        )
    _check_finite("training", bank)
    return bank, torch.searchsorted(classes, values), classes


def checked_sets(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Check features and labels of a training and a test set, and renumber their classes from 0.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training set.

    Returns:
        The four tensors in the order of the arguments, on the device of the training features, and K. Features are
        float32 or float64; labels are 0 to K - 1, in the order of their values.

    Raises:
        TypeError: If labels are not integers, or features not floating-point.
        ValueError: If the shapes do not fit, there are fewer than two classes or no test sample, a feature is not
            finite, or a test label does not occur in training.
    """
    check_features_and_labels(train_features, train_labels)
    check_features_and_labels(test_features, test_labels)
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"training and test features must have the same width, got {train_features.shape[1]} and "
            f"{test_features.shape[1]}"
        )
    bank, bank_labels, classes = checked_bank(train_features, train_labels)
    queries = at_least_float32(test_features.detach()).to(bank)
    values = test_labels.to(bank.device, classes.dtype).contiguous()
    if len(values) == 0:
        raise ValueError("a transfer set needs at least one test sample, got none")
    query_labels = torch.searchsorted(classes, values).clamp(max=len(classes) - 1)
    missing = values[classes[query_labels] != values]
    if len(missing):
        names = ", ".join(str(label) for label in sorted(set(missing.tolist()))[:5])
        raise ValueError(
            f"test labels must occur in training, but {len(missing)} do not ({names}). Remove these test samples, or "
            f"add training samples of their classes."
        )
    _check_finite("test", queries)
    return bank, bank_labels, queries, query_labels, len(classes)


def checked_features(features: Tensor, labels: Tensor, num_classes: int | None) -> tuple[Tensor, Tensor, int]:
    """Check features and labels; return features in float32 or float64, labels in int64, and the number of classes.

    Args:
        features: (N, D), any floating type.
        labels: (N,), integers in [0, K).
        num_classes: K. None: the largest label plus one.

    Raises:
        TypeError: If the labels are not integers, or the features not floating-point.
        ValueError: If the shapes do not fit, there is no sample, a label is out of range, or a feature is not finite.
    """
    check_features_and_labels(features, labels)
    x = at_least_float32(features.detach())
    if len(x) == 0:
        raise ValueError("a metric needs at least one sample, got none")
    y = labels.to(x.device).long()
    k = int(y.max()) + 1 if num_classes is None else num_classes
    if outside := int(((y < 0) | (y >= k)).sum()):
        raise ValueError(f"labels must lie in [0, {k}), but {outside} of them do not")
    if bad := count_bad_rows(x):
        raise ValueError(
            f"features must be finite, but {bad} of {len(x)} samples hold NaN or inf: remove these samples, or "
            "check the model that produced them"
        )
    return x, y, k


def _check_finite(part: str, features: Tensor) -> None:
    bad_rows = count_bad_rows(features)
    if bad_rows:
        raise ValueError(
            f"features must be finite, but {bad_rows} {part} samples hold NaN or inf: remove these samples, or check "
            "the model that produced them"
        )
