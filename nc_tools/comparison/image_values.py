"""A metric as a mean of one value per test image, and the variance that comes from the choice of the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.random_effects import ErrorTerm

_BINS = 15
PerImage = Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class ImageValues:
    """One value per test image whose mean, by class or over all images, is the metric of one run.

    Attributes:
        values: (N,), in the order of the test set.
        labels: (N,); which images belong together in a mean by class.
        by_class: Whether the metric is the mean over classes of the means within them.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    by_class: bool

    @property
    def metric(self) -> float:
        """The metric of the run."""
        weights, groups = strata(self.labels, by_class=self.by_class)
        sums = np.bincount(groups, weights=self.values)
        return float((weights * sums / np.bincount(groups)).sum())


def strata(labels: NDArray[np.int64], *, by_class: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the weight of each group of images in the metric (C,), and the group of each image (N,)."""
    if not by_class:
        return np.ones(1), np.zeros(len(labels), dtype=np.int64)
    classes, groups = np.unique(labels, return_inverse=True)
    return np.full(len(classes), 1.0 / len(classes)), groups.astype(np.int64)


def has_image_values(metric: str) -> bool:
    """Return True if a metric is a mean over test images, so that its variance over test sets can be estimated.

    Example:
        >>> has_image_values("test/gen/balanced_accuracy"), has_image_values("test/ood/far/knn/auroc")
        (True, False)
    """
    return metric in _METRICS


def image_values(
    metric: str, slices: Iterable[NDArray[Any]], labels: NDArray[Any], temperature: float | None
) -> ImageValues:
    """Return the values of a metric by image for one run.

    Accuracy, NLL and Brier score are means. The expected calibration error is one to first order: with s_b the sign of
    (right - confidence) summed over bin b, an image of that bin adds s_b (right - confidence) (the infinitesimal
    jackknife, Efron (1982), "The jackknife, the bootstrap and other resampling plans", chapter 6).

    Args:
        metric: A key for which `has_image_values` is true.
        slices: The logits (N, K) in parts of consecutive rows, which need not be in memory together.
        labels: (N,).
        temperature: Temperature of the run; needed for the metrics after temperature scaling.

    Raises:
        ValueError: If the metric needs a temperature and there is none.
    """
    function, by_class, needs_temperature = _METRICS[metric]
    if needs_temperature and temperature is None:
        raise ValueError(
            f"{metric} is computed with the temperature of the calibration, which this run did not record: compare "
            "another metric"
        )
    divisor = temperature if needs_temperature and temperature is not None else 1.0
    numbers = np.asarray(labels, dtype=np.int64)
    parts, start = [], 0
    for part in slices:
        classes = np.shape(part)[1]
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < classes:
            raise ValueError(
                f"test_labels must lie in 0..{classes - 1}, got {numbers.min()}..{numbers.max()}. Make that run again"
            )
        parts.append(function(np.asarray(part, dtype=np.float64) / divisor, numbers[start : start + len(part)]))
        start += len(part)
    values = np.concatenate(parts) if parts else np.zeros(0)
    if function is _calibration_gap:
        values = _signed_by_bin(values)
    return ImageValues(values.astype(np.float32), numbers, by_class)


def accuracy_values(metric: str, correct: NDArray[np.bool_], labels: NDArray[Any]) -> ImageValues | None:
    """Return the values by image from the predicted classes alone; None if the metric needs more than these.

    Args:
        metric: Key of the metric.
        correct: Whether each prediction is right (N,).
        labels: (N,).
    """
    function, by_class, _ = _METRICS.get(metric, (None, False, False))
    return ImageValues(correct.astype(np.float32), labels.astype(np.int64), by_class) if function is _correct else None


def image_error(
    runs: Sequence[NDArray[Any]], labels: NDArray[np.int64], *, by_class: bool
) -> tuple[ErrorTerm, ErrorTerm]:
    """Return the variance that the test images add to the mean difference, and the part of it that comes from the rest.

    With d_si the difference of seed s on image i, the model is d_si = mu + seed_s + image_i + rest_si, within each
    class for a mean by class. For S seeds and N images of one class the first variance is
    (var(image) + var(rest) / S) / N, the second var(rest) / (S N). The variance over seeds includes the second one too.

    Args:
        runs: One array (N,) for each seed: the mean difference of its runs by image.
        labels: (N,).
        by_class: Whether the metric is a mean of means by class.
    """
    table = np.stack(runs).astype(np.float64)
    seeds = len(table)
    weights, groups = strata(labels, by_class=by_class)
    counts = np.bincount(groups)
    centered = table - _group_means(table, groups, counts)[:, groups]
    each = _group_sums(centered**2, groups, len(counts)).mean(axis=0)
    average = _group_sums(centered.mean(axis=0, keepdims=True) ** 2, groups, len(counts))[0]
    # A class with one image shows no spread: it gets the mean variance of the others.
    degrees = counts - 1
    factors = weights**2 / counts
    total = float((factors * _variances(average, degrees)).sum())
    single = float((factors * _variances(each, degrees)).sum())
    rest = max(single - total, 0.0) / max(seeds - 1, 1)
    df = float(max(degrees.sum(), 1))
    return ErrorTerm(total, df), ErrorTerm(min(rest, total), df * max(seeds - 1, 1))


def _variances(squares: NDArray[np.float64], degrees: NDArray[np.int64]) -> NDArray[np.float64]:
    pooled = squares.sum() / max(int(degrees.sum()), 1)
    return np.where(degrees > 0, squares / np.maximum(degrees, 1), pooled)


def _group_sums(values: NDArray[np.float64], groups: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    return np.stack([np.bincount(groups, weights=row, minlength=size) for row in values])


def _group_means(
    values: NDArray[np.float64], groups: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    return _group_sums(values, groups, len(counts)) / counts


def _log_probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _correct(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(logits.argmax(axis=1) == labels, dtype=np.float64)


def _nll(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(-np.take_along_axis(_log_probabilities(logits), labels[:, None], axis=1)[:, 0])


def _brier(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    probabilities = np.exp(_log_probabilities(logits))
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return np.asarray((probabilities**2).sum(axis=1) - 2 * of_label + 1)


def _calibration_gap(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return confidence and (right - confidence) of each image, an array (N, 2)."""
    confidence = np.exp(_log_probabilities(logits).max(axis=1))
    return np.stack([confidence, _correct(logits, labels) - confidence], axis=1)


def _signed_by_bin(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    confidence, gap = pairs.reshape(-1, 2).T
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    signs = np.sign(np.bincount(bins, weights=gap, minlength=_BINS))
    return np.asarray(signs[bins] * gap)


# key -> (function of logits and labels, whether it is a mean of means by class, whether it needs the temperature)
_METRICS: Mapping[str, tuple[PerImage, bool, bool]] = {
    "test/gen/balanced_accuracy": (_correct, True, False),
    "test/gen/accuracy": (_correct, False, False),
    "test/cal/nll": (_nll, False, False),
    "test/cal/brier": (_brier, False, False),
    "test/cal/ece": (_calibration_gap, False, False),
    "test/cal_ts/nll": (_nll, False, True),
    "test/cal_ts/brier": (_brier, False, True),
    "test/cal_ts/ece": (_calibration_gap, False, True),
}
