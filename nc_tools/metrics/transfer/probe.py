"""Linear probes: how much a linear classifier can read from frozen features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools.metrics.checks import checked_bank, checked_sets
from nc_tools.metrics.transfer.logistic import fit_logistic
from nc_tools.metrics.transfer.ridge import fit_ridge

# Inverse strength of the L2 penalty of the logistic probe, on standardized features.
PROBE_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Strength of the L2 penalty of the ridge probe as a share of N, on standardized features.
RIDGE_GRID = tuple(10.0**power for power in range(-5, 3))


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier on features as they are: scores = features @ weight.T + bias.

    Attributes:
        weight: (K, D), with the standardization folded in.
        bias: (K,).
        classes: The label of each row (K,), rising.
        strength: What was chosen: C of a logistic probe, lambda / N of a ridge probe.
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
    """Fit a multinomial logistic regression to frozen features, with the penalty chosen on a hold-out of them.

    Features are standardized by their mean and deviation (a constant feature is left out). The penalty's inverse
    strength C is chosen from ``PROBE_GRID`` by balanced accuracy on a quarter of each class, the stronger penalty
    winning ties, and the probe is then fitted to all of them. L-BFGS on the features' device, along rising C, each fit
    starting from the last one (see :func:`~nc_tools.metrics.transfer.logistic.fit_logistic`). Without a class of two
    samples nothing can be held out, and C is 1.

    Source: Alain and Bengio (2017); the selection on a hold-out follows Kornblith, Shlens and Le (2019).

    Args:
        features: (N, D).
        labels: (N,), any integers, at least two different ones.
        generator: Draws the hold-out.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, there are fewer than two classes, or features are not finite.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8) + 7
        >>> fit_probe(x, y, torch.Generator().manual_seed(0)).predict(torch.tensor([[0.5], [-2.0]]))
        tensor([8, 7])
    """
    x, y, known = checked_bank(features, labels)
    with measuring_precision(x.device):
        x, middle, scale = _standardized(x)
        kept = _kept(y, generator)
        best, number = 1.0, len(known)
        if not bool(kept.all()):
            accuracies = []
            fitted, size = None, y[~kept].bincount(minlength=number)
            for strength in PROBE_GRID:
                fitted = fit_logistic(x[kept], y[kept], number, strength, fitted)
                guess = (x[~kept] @ fitted[:, :-1].T + fitted[:, -1]).argmax(1)
                right = y[~kept][guess == y[~kept]].bincount(minlength=number)
                accuracies.append((right[size > 0] / size[size > 0]).mean())
            found = torch.stack(accuracies).tolist()
            best = PROBE_GRID[found.index(max(found))]
        fitted = fit_logistic(x, y, number, best)
        return _folded(fitted[:, :-1], fitted[:, -1], middle, scale, known, best)


def fit_ridge_probe(features: Tensor, labels: Tensor) -> Probe:
    """Fit a ridge regression on one-hot targets to frozen features: a probe in closed form.

    The penalty, a share of N from ``RIDGE_GRID``, is the one with the least exact leave-one-out squared error, so that
    nothing is held out and nothing drawn (see :func:`~nc_tools.metrics.transfer.ridge.fit_ridge`). Features are
    standardized as for :func:`fit_probe`, once, with the sample that is left out among them. It reads classes by their
    means, so that a logistic probe is the stronger reader where features are many or classes unequal; this one has no
    iterations.

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
    x, y, known = checked_bank(features, labels)
    with measuring_precision(x.device):
        x, middle, scale = _standardized(x)
        targets = torch.nn.functional.one_hot(y, len(known)).to(x.dtype)
        fitted = fit_ridge(x, targets, RIDGE_GRID)
        return _folded(fitted.weight.to(x.dtype), fitted.bias.to(x.dtype), middle, scale, known, fitted.strength)


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    generator: torch.Generator,
) -> float:
    """Return the test accuracy of a multinomial logistic regression on frozen features. See :func:`fit_probe`.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers, at least two different ones.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.
        generator: Draws the hold-out.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, features are not finite, or a test label was not seen in training.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> linear_probe(x, y, x, y, torch.Generator().manual_seed(0))
        1.0
    """
    x, y, queries, answers, _ = checked_sets(train_features, train_labels, test_features, test_labels)
    return float((fit_probe(x, y, generator).predict(queries) == answers).double().mean())


def ridge_probe(train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """Return the test accuracy of a ridge regression on frozen features. See :func:`fit_ridge_probe`.

    Args:
        train_features: (N, D).
        train_labels: (N,), any integers, at least two different ones.
        test_features: (M, D).
        test_labels: (M,), classes of the training part.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, features are not finite, or a test label was not seen in training.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]).repeat(8, 1), torch.arange(2).repeat(8)
        >>> ridge_probe(x, y, x, y)
        1.0
    """
    x, y, queries, answers, _ = checked_sets(train_features, train_labels, test_features, test_labels)
    return float((fit_ridge_probe(x, y).predict(queries) == answers).double().mean())


def _standardized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    spread, middle = torch.std_mean(x, dim=0, correction=0)
    scale = torch.where(spread > 0, 1 / spread, 0.0)
    return (x - middle) * scale, middle, scale


def _folded(weight: Tensor, bias: Tensor, middle: Tensor, scale: Tensor, known: Tensor, strength: float) -> Probe:
    """Turn a classifier of standardized features into one of features as they are."""
    weight = weight * scale
    return Probe(weight, bias - weight @ middle, known, strength)


def _kept(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Mark what stays when a random quarter (at least one) of every class of two or more is held out."""
    key = torch.rand(len(labels), generator=generator, dtype=torch.float64, device=generator.device).to(labels.device)
    order = (labels + key).argsort()
    ordered = labels[order]
    counts = labels.bincount()
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[ordered]
    held = (counts / 4).round().long().clamp(min=1)
    held[counts < 2] = 0
    kept = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    return kept.index_put_((order,), rank >= held[ordered])
