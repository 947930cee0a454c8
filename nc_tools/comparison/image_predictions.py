"""Read the test predictions of one run: which images are right, and the sums of a reliability diagram."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nc_tools.comparison.check_predictions import (
    SCALED_CONFIDENCES,
    SHORT,
    check_class_numbers,
    check_confidences,
    check_predictions,
)
from nc_tools.comparison.image_values import ImageValues, accuracy_values, has_image_values, image_values
from nc_tools.comparison.surest_mistakes import NO_MISTAKES, SurestMistakes, surest_mistakes

BINS = 15
_SLICE_NUMBERS = 2**24


@dataclass(frozen=True)
class Reliability:
    """Sums over the images in each equal-width confidence bin, so that runs can be added; each is an array (BINS,).

    Attributes:
        count: Images whose highest probability is in the bin.
        confidence: Sum of those probabilities.
        correct: Number of those predictions that are right.
    """

    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    @property
    def ece(self) -> float:
        """Expected calibration error of the bins: the sum of |correct - confidence|, divided by the image count."""
        return float(np.abs(self.correct - self.confidence).sum() / max(self.count.sum(), 1.0))


@dataclass(frozen=True)
class Predictions:
    """Summary of one run's test predictions.

    Attributes:
        correct: Whether the predicted class is the label (N,), in the order of the test set.
        guesses: The class of the largest logit (N,).
        truth: The labels (N,).
        num_classes: K.
        labels: Hash of the labels. Two runs with the same hash are taken to have the same test images in the same
            order.
        before: Reliability of the softmax as trained.
        after: The same with the recorded temperature; None without one.
        mistakes: The wrong predictions with the highest confidence.
        primary: Values of the primary metric by image; None if it is not a mean over images, or needs a temperature
            that the run lacks.
    """

    correct: NDArray[np.bool_]
    guesses: NDArray[np.int32]
    truth: NDArray[np.int32]
    num_classes: int
    labels: str
    before: Reliability
    after: Reliability | None
    mistakes: SurestMistakes = NO_MISTAKES
    primary: ImageValues | None = None


def read_predictions(path: Path, metric: str = "") -> Predictions:
    """Read a run's predictions.safetensors and summarize it, part by part to save memory.

    Args:
        path: A safetensors file with ``test_logits`` (N, K), ``test_labels`` (N,) and, optionally,
            ``temperature`` (1,). Without logits it holds ``test_guesses``, ``test_confidences`` and, where there is a
            temperature, ``test_scaled_confidences``, each (N,), and ``num_classes`` (1,). Records of published tables
            can have this form, which takes a tenth of the size or less.
        metric: The primary metric, whose values by image are read too if it is a mean over images.

    Raises:
        ValueError: If the file is damaged, lacks a tensor, or its shapes do not fit.
    """
    # Imported here: most of a comparison needs no safetensors.
    from safetensors import SafetensorError, safe_open

    check_predictions(path)
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            labels = file.get_tensor("test_labels")
            if "test_logits" not in names:
                read = names & {*SHORT, SCALED_CONFIDENCES}
                summary = _without_logits(path.name, {name: file.get_tensor(name) for name in read})
                return replace(summary, primary=accuracy_values(metric, summary.correct, labels))
            temperature = float(file.get_tensor("temperature").ravel()[0]) if "temperature" in names else None
            logits = file.get_slice("test_logits")
            check_class_numbers(f"test_labels in {path.name}", labels, logits.get_shape()[1])
            summary = _summarize(_slices(logits, len(labels)), labels, temperature)
            values = accuracy_values(metric, summary.correct, labels)
            if values is None and has_image_values(metric):
                if metric.startswith("test/cal_ts/") and temperature is None:
                    return summary
                values = image_values(metric, _slices(logits, len(labels)), labels, temperature)
            return replace(summary, primary=values)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}). Train that run again") from error


def _slices(logits: Any, num_images: int) -> Iterator[NDArray[np.float32]]:
    if logits.get_shape()[0] != num_images:
        raise ValueError(
            f"test_logits must have one row per label, got {logits.get_shape()[0]} rows and {num_images} labels"
        )
    rows = max(1, _SLICE_NUMBERS // logits.get_shape()[1])
    for start in range(0, num_images, rows):
        # A slice must end inside the tensor.
        part = logits[start : min(start + rows, num_images)]
        # The largest logit of each row must be finite. Maximum and minimum of all logits are much faster to compute, so
        # that the rows are looked at only if the minimum is not finite.
        if part.size and not (np.isfinite(part.max()) and (np.isfinite(part.min()) or _rows_are_finite(part))):
            raise ValueError("test_logits in predictions.safetensors are not finite: train that run again")
        yield part


def _rows_are_finite(part: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(part.max(axis=1)).all())


def _summarize(
    slices: Iterator[NDArray[np.float32]], labels: NDArray[np.int64], temperature: float | None
) -> Predictions:
    guesses = np.zeros(len(labels), dtype=np.int32)
    correct = np.zeros(len(labels), dtype=np.bool_)
    num_classes, mistakes = 0, NO_MISTAKES
    before = after = Reliability(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS))
    start = 0
    for logits in slices:
        guess = logits.argmax(axis=1)
        truth = labels[start : start + len(logits)]
        right = guess == truth
        guesses[start : start + len(logits)] = guess
        num_classes = logits.shape[1]
        correct[start : start + len(logits)] = right
        mistakes = mistakes.joined(surest_mistakes(logits, truth, start, guess))
        shifted = _shifted(logits)
        before += _binned(_highest(shifted), right)
        if temperature is not None:
            after += _binned(_highest(shifted / temperature), right)
        start += len(logits)
    digest = hashlib.sha256(np.ascontiguousarray(labels, dtype=np.int64).tobytes()).hexdigest()
    after_scaling = after if temperature is not None else None
    return Predictions(correct, guesses, labels.astype(np.int32), num_classes, digest, before, after_scaling, mistakes)


def _without_logits(file: str, tensors: dict[str, NDArray[Any]]) -> Predictions:
    """Return the summary of a file without logits; its confidences are rounded ones."""
    num_classes = int(tensors["num_classes"][0])
    for name in ("test_labels", "test_guesses"):
        check_class_numbers(f"{name} in {file}", tensors[name], num_classes)
    for name in tensors.keys() & {"test_confidences", SCALED_CONFIDENCES}:
        check_confidences(f"{name} in {file}", tensors[name])
    labels, guesses = tensors["test_labels"].astype(np.int64), tensors["test_guesses"].astype(np.int32)
    right, scaled = guesses == labels, tensors.get(SCALED_CONFIDENCES)
    return Predictions(
        right,
        guesses,
        labels.astype(np.int32),
        num_classes,
        hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest(),
        _binned(tensors["test_confidences"].astype(np.float64), right),
        None if scaled is None else _binned(scaled.astype(np.float64), right),
    )


def reliability(logits: NDArray[np.float32], correct: NDArray[np.bool_], temperature: float = 1.0) -> Reliability:
    """Sum confidences (highest softmax probabilities) and count right predictions in bins of equal width.

    Source: the diagram and its error after Guo et al. (2017), "On calibration of modern neural networks",
    with bins (i / BINS, (i + 1) / BINS].

    Args:
        logits: (N, K).
        correct: Whether each prediction is right (N,).
        temperature: The logits are divided by it.
    """
    return _binned(confidences(logits, temperature), correct)


def confidences(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the highest softmax probability (N,) of each row of logits (N, K), after division by a temperature."""
    return _highest(_shifted(logits) / temperature)


def _shifted(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return logits (N, K) minus the largest of each row, transposed to (K, N) for faster sums over few classes."""
    z = np.ascontiguousarray(logits.T, dtype=np.float64)
    return np.asarray(z - z.max(axis=0))


def _highest(shifted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the highest softmax probability of each column: 1 / sum exp(z - max z), without overflow."""
    return np.asarray(1.0 / np.exp(shifted).sum(axis=0))


def _binned(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Reliability:
    index = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return Reliability(
        np.bincount(index, minlength=BINS).astype(np.float64),
        _sum_by(index, confidence),
        _sum_by(index, correct),
    )


def _sum_by(index: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
    return np.bincount(index, weights=values, minlength=BINS).astype(np.float64)
