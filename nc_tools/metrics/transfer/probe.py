"""Linear probes: the accuracy of linear classifiers on frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools._support.whitening import constant_deviation
from nc_tools.metrics.checks import checked_bank, checked_sets
from nc_tools.metrics.transfer.logistic import fit_logistic
from nc_tools.metrics.transfer.ridge import fit_ridge

# Inverse strengths C of the L2 penalty of the logistic probe, on standardized features.
PROBE_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Strengths of the L2 penalty of the ridge probe, divided by N, on standardized features.
RIDGE_GRID = tuple(10.0**power for power in range(-5, 3))


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of frozen features: scores = features @ weight.T + bias.

    Attributes:
        weight: (K, D), float64; includes the standardization, so features are used as they are.
        bias: (K,), float64.
        classes: The label of each row (K,), in ascending order.
        strength: The chosen penalty: C of a logistic probe, lambda / N of a ridge probe.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor
    strength: float

    def predict(self, features: Tensor) -> Tensor:
        """Return the label of each row of features (N, D): (N,)."""
        with measuring_precision(self.weight.device):
            scores = features.detach().to(self.weight) @ self.weight.T + self.bias
        return self.classes[scores.argmax(1)]


def fit_probe(features: Tensor, labels: Tensor, generator: torch.Generator) -> Probe:
    """Fit a multinomial logistic regression to frozen features, with a penalty chosen on a hold-out part.

    Features are standardized by their mean and standard deviation in float64, and then fitted in float32; a constant
    feature gets no weight. The inverse strength C of the penalty is chosen from ``PROBE_GRID`` by balanced accuracy on
    a quarter of each class (of two with the same accuracy, the stronger penalty), and the probe is then fitted to all
    samples. L-BFGS runs on the device of the features, for ascending C, each fit starting from the one before (see
    :func:`~nc_tools.metrics.transfer.logistic.fit_logistic`). If no class has two samples nothing can be held out, and
    C is 1.

    Source: Alain and Bengio (2017); the selection on a hold-out follows Kornblith, Shlens and Le (2019).

    Args:
        features: (N, D).
        labels: (N,), any integers, at least two different ones.
        generator: Draws the hold-out part.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, there are fewer than two classes, or features are not finite.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8) + 7
        >>> fit_probe(x, y, torch.Generator().manual_seed(0)).predict(torch.tensor([[0.5], [-2.0]]))
        tensor([8, 7])
    """
    x, y, classes = checked_bank(features, labels)
    with measuring_precision(x.device):
        x, mean, scale = _standardized(x)
        x = x.float()
        kept = _kept(y, generator)
        best, num_classes = 1.0, len(classes)
        if not bool(kept.all()):
            accuracies = []
            fitted, size = None, y[~kept].bincount(minlength=num_classes)
            for strength in PROBE_GRID:
                fitted = fit_logistic(x[kept], y[kept], num_classes, strength, fitted)
                guess = (x[~kept] @ fitted[:, :-1].T + fitted[:, -1]).argmax(1)
                right = y[~kept][guess == y[~kept]].bincount(minlength=num_classes)
                accuracies.append((right[size > 0] / size[size > 0]).mean())
            values = torch.stack(accuracies).tolist()
            best = PROBE_GRID[values.index(max(values))]
        fitted = fit_logistic(x, y, num_classes, best)
        return _folded(fitted[:, :-1], fitted[:, -1], mean, scale, classes, best)


def fit_ridge_probe(features: Tensor, labels: Tensor) -> Probe:
    """Fit a ridge regression on one-hot targets to frozen features, in closed form.

    The penalty, N times a value of ``RIDGE_GRID``, is the one with the smallest leave-one-out squared error, which is
    computed exactly: nothing is held out and nothing is random (see
    :func:`~nc_tools.metrics.transfer.ridge.fit_ridge`). Features are standardized as in :func:`fit_probe`, once, with
    all samples. A logistic probe is usually more accurate with many features or classes of unequal size; this one needs
    no iterations.

    Args:
        features: (N, D).
        labels: (N,), any integers, at least two different ones.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, there are fewer than two classes, or features are not finite.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> fit_ridge_probe(x, y).predict(torch.tensor([[0.5], [-2.0]]))
        tensor([1, 0])
    """
    x, y, classes = checked_bank(features, labels)
    with measuring_precision(x.device):
        x, mean, scale = _standardized(x)
        fitted = fit_ridge(x, torch.nn.functional.one_hot(y, len(classes)), RIDGE_GRID)
        return _folded(fitted.weight, fitted.bias, mean, scale, classes, fitted.strength)


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    generator: torch.Generator,
) -> float:
    """Return the test accuracy of a multinomial logistic regression on frozen features (see :func:`fit_probe`).

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers, at least two different ones.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        generator: Draws the hold-out part.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, features are not finite, or a test label is not in the training part.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> linear_probe(x, y, x, y, torch.Generator().manual_seed(0))
        1.0
    """
    x, y, queries, answers, _ = checked_sets(train_features, train_labels, test_features, test_labels)
    return float((fit_probe(x, y, generator).predict(queries) == answers).double().mean())


def ridge_probe(train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """Return the test accuracy of a ridge regression on frozen features (see :func:`fit_ridge_probe`).

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers, at least two different ones.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, features are not finite, or a test label is not in the training part.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> ridge_probe(x, y, x, y)
        1.0
    """
    x, y, queries, answers, _ = checked_sets(train_features, train_labels, test_features, test_labels)
    return float((fit_ridge_probe(x, y).predict(queries) == answers).double().mean())


def _standardized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the standardized features, their mean and the inverse of their standard deviation, float64."""
    mean = x.mean(dim=0, dtype=torch.float64)
    x = x - mean
    deviation = x.square().mean(dim=0).sqrt()
    scale = torch.where(deviation > constant_deviation(mean[None]), 1 / deviation, 0.0)
    return x.mul_(scale), mean, scale


def _folded(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, classes: Tensor, strength: float) -> Probe:
    """Return a probe of features as they are, from a classifier of standardized features."""
    weight = weight.double() * scale
    return Probe(weight, bias.double() - weight @ mean, classes, strength)


def _kept(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return which samples are kept (N,), bool, if a random quarter of each class is held out.

    At least one sample of each class of two or more is held out, and none of a class of one.
    """
    key = torch.rand(len(labels), generator=generator, dtype=torch.float64, device=generator.device).to(labels.device)
    order = (labels + key).argsort()
    ordered = labels[order]
    counts = labels.bincount()
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[ordered]
    held = (counts / 4).round().long().clamp(min=1)
    held[counts < 2] = 0
    kept = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    return kept.index_put_((order,), rank >= held[ordered])
