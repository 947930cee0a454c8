"""A linear probe: how much a logistic regression can read from frozen features."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_sets

# Inverse strength of the L2 penalty of the probe, on standardised features.
PROBE_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_PROBE_STEPS = 200


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    generator: torch.Generator,
) -> float:
    """Return the test accuracy of a multinomial logistic regression on frozen features.

    Features are standardised by the training part's mean and deviation (a constant feature is left out). The
    penalty's inverse strength C is chosen from ``PROBE_GRID`` by balanced accuracy on a quarter of each class
    of the training part, the stronger penalty winning ties, and the probe is then fitted to the whole of it.
    L-BFGS, at most 200 steps along rising C, each fit starting from the last one. Without a class of two
    samples nothing can be held out, and C is 1.

    Source: Alain and Bengio (2017); the selection on a hold-out follows Kornblith, Shlens and Le (2019).

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
    spread, middle = torch.std_mean(x, dim=0, correction=0)
    scale = torch.where(spread > 0, 1 / spread, 0.0)
    x, queries = ((part - middle).mul(scale).cpu() for part in (x, queries))
    y, answers = y.cpu(), answers.cpu()
    kept = _kept(y, generator)
    best = 1.0
    if not bool(kept.all()):
        accuracies = []
        guesses = _fit_path(x[kept], y[kept], x[~kept], PROBE_GRID)
        held, size = y[~kept], y[~kept].bincount()
        for guess in guesses:
            right = torch.zeros(len(size)).index_add_(0, held, (guess == held).float())
            accuracies.append(float((right[size > 0] / size[size > 0]).mean()))
        best = PROBE_GRID[accuracies.index(max(accuracies))]
    guess = _fit_path(x, y, queries, (best,))[0]
    return float((guess == answers).double().mean())


def _kept(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Mark what stays when a random quarter (at least one) of every class of two or more is held out."""
    key = torch.rand(len(labels), generator=generator, dtype=torch.float64, device=generator.device).cpu()
    order = (labels + key).argsort()
    ordered = labels[order]
    counts = labels.bincount()
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[ordered]
    held = (counts / 4).round().long().clamp(min=1)
    held[counts < 2] = 0
    return torch.ones(len(labels), dtype=torch.bool).index_put_((order,), rank >= held[ordered])


def _fit_path(x: Tensor, y: Tensor, queries: Tensor, strengths: tuple[float, ...]) -> list[Tensor]:
    """Fit the probe for rising C from one start and return its predictions for the queries at each."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    data, target, asked = x.numpy(), y.numpy(), queries.numpy()
    probe = LogisticRegression(max_iter=_PROBE_STEPS, warm_start=True)
    guesses = []
    with warnings.catch_warnings():
        # A probe of separable classes has no finite optimum at weak penalties; the step limit is part of its
        # definition.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in strengths:
            probe.set_params(C=strength).fit(data, target)
            guesses.append(torch.from_numpy(probe.predict(asked)))
    return guesses
