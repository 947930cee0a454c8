"""Few-shot accuracy on frozen features: nearest class means and imprinted weights, over random draws of the shots."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.heads.imprint import imprint
from nc_tools.metrics.checks import checked_sets


def nearest_class_mean(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    shots: int,
    draws: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Return the accuracy of the nearest class mean of ``shots`` random samples per class, averaged over draws.

    Few-shot accuracy without parameters to tune. The interval is over the draws, with the test set fixed. The distance
    is Euclidean, on features as they are.

    Source: Snell, Swersky and Zemel (2017); Galanti, Gyorgy and Hutter (2021) relate it to CDNV.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        shots: Samples of each class in its mean; a class with fewer gives all it has.
        draws: Number of random draws.
        generator: Draws the shots.

    Returns:
        Mean accuracy and the half-width of its 95 % t interval (0 for a single draw, which has no interval).

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shots or draws are below 1, shapes do not fit, features are not finite, or a test label
            is not in the training part.

    Example:
        >>> x, y = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([0, 0, 1, 1])
        >>> nearest_class_mean(x, y, x, y, shots=1, draws=5, generator=torch.Generator().manual_seed(0))
        (1.0, 0.0)
    """
    x, y, queries, answers, num_classes = checked_sets(train_features, train_labels, test_features, test_labels)
    with measuring_precision(x.device):
        # A common origin changes no distance, and the products below lose fewer digits.
        origin = x.mean(dim=0, dtype=torch.float64)
        x, queries = x - origin, queries - origin

        def is_correct(rows: Tensor, weight: Tensor) -> Tensor:
            means = torch.einsum("ks,ksd->kd", weight.to(x.dtype), x[rows])
            scores = queries @ means.T - means.square().sum(dim=1) / 2
            return scores.argmax(dim=1) == answers

        return _mean_over_draws(y, num_classes, shots, draws, generator, is_correct)


def imprint_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    shots: int,
    draws: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Return the accuracy of a head imprinted from ``shots`` random samples per class, averaged over draws.

    The nearest class mean by cosine: the classifier of :func:`~nc_tools.heads.imprint` with one proxy, whose class
    vectors are the means of unit features. If this is higher than :func:`nearest_class_mean`, feature norms hurt the
    latter. The same generator draws the same shots for both.

    Source: Qi, Brown and Lowe (2018).

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        shots: Samples of each class in its vector; a class with fewer gives all it has.
        draws: Number of random draws.
        generator: Draws the shots.

    Returns:
        Mean accuracy and the half-width of its 95 % t interval (0 for a single draw, which has no interval).

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shots or draws are below 1, shapes do not fit, features are not finite, or a test label
            is not in the training part.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.1], [9.0, 0.0], [0.0, 2.0], [0.1, 5.0]]), torch.tensor([0, 0, 1, 1])
        >>> imprint_accuracy(x, y, x, y, shots=1, draws=5, generator=torch.Generator().manual_seed(0))
        (1.0, 0.0)
    """
    x, y, queries, answers, num_classes = checked_sets(train_features, train_labels, test_features, test_labels)
    x, queries = x.double(), queries.double()

    def is_correct(rows: Tensor, weight: Tensor) -> Tensor:
        used = rows[weight > 0]
        head = imprint(x[used], y[used], num_classes, scale=1.0)
        scores: Tensor = head(queries)
        return scores.argmax(dim=1) == answers

    with measuring_precision(x.device):
        return _mean_over_draws(y, num_classes, shots, draws, generator, is_correct)


def _mean_over_draws(
    labels: Tensor,
    num_classes: int,
    shots: int,
    draws: int,
    generator: torch.Generator,
    is_correct: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Return the mean accuracy over draws of the shots, and the half-width of its interval.

    ``is_correct`` gets the drawn rows (K, S) and the weight of each in the mean of its class (K, S), 0 for a repeated
    row, and returns whether each test sample is classified correctly (M,).
    """
    if not (isinstance(shots, int) and isinstance(draws, int) and shots >= 1 and draws >= 1):
        raise ValueError(f"shots and draws must be whole numbers, at least 1, got {shots} and {draws}")
    counts = labels.bincount(minlength=num_classes)
    first = counts.cumsum(0) - counts
    slots = torch.arange(min(shots, int(counts.max())), device=labels.device)
    weight = (slots < counts[:, None]).float() / counts.clamp(max=shots)[:, None]
    slots = slots.minimum(counts[:, None] - 1)
    accuracies = []
    for _ in range(draws):
        key = torch.rand(len(labels), generator=generator, dtype=torch.float64, device=generator.device)
        rows = (labels + key.to(labels.device)).argsort()[first[:, None] + slots]
        accuracies.append(is_correct(rows, weight).double().mean())
    values = torch.stack(accuracies).cpu()
    return float(values.mean()), _half_width(values)


def _half_width(values: Tensor) -> float:
    """Return the half-width of the 95 % t interval of the mean."""
    # scipy.stats.t.ppf calls stdtrit; importing scipy.stats for it would take half a second.
    from scipy.special import stdtrit

    if len(values) < 2:
        return 0.0
    return float(stdtrit(len(values) - 1, 0.975)) * float(values.std()) / math.sqrt(len(values))
