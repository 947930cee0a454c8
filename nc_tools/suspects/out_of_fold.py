"""Logits of every sample from a linear classifier that was not trained on it."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.precision import measuring_precision
from nc_tools._support.whitening import constant_deviation
from nc_tools.metrics.transfer.logistic import fit_logistic

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalty strengths C for standardized features, tried in this order until the loss no longer falls."""
# A fit to N samples ends when no entry of the gradient exceeds _TOLERANCE / K, times N / 10,000 if N is smaller than
# that. For 10,000 samples or more, a tolerance seven times smaller changes the AUROC of suspects by less than .001.
# Fewer samples are fitted more exactly, since that costs little time.
_TOLERANCE, _MANY = 2e-2, 10_000


def standardized(features: Tensor, reference: Tensor | None = None) -> Tensor:
    """Return features with the mean 0 and the deviation 1 of a reference, float32; a constant feature becomes 0.

    Args:
        features: (N, D).
        reference: (M, D); None for the features themselves.

    Example:
        >>> standardized(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    x = features if reference is None else reference
    mean = x.mean(dim=0, dtype=torch.float64)
    square = torch.zeros_like(mean)
    for rows in torch.split(x, 8192):
        square += (rows - mean).square_().sum(dim=0)
    deviation = (square / len(x)).sqrt()
    scale = torch.where(deviation > constant_deviation(mean[None]), 1 / deviation, 0.0)
    return torch.cat([(rows - mean).mul_(scale).float() for rows in torch.split(features, 8192)])


def out_of_fold_logits(
    features: Tensor, labels: Tensor, num_classes: int, *, folds: int = 5, seed: int = 0
) -> tuple[Tensor, float]:
    """Return logits of every sample from a logistic regression on the other folds.

    A model that was trained on a wrong label may have memorized it, and then finds nothing suspicious. Each class is
    spread evenly over the folds. The penalty is chosen by the loss of the *given* labels on the first fold: penalties
    are weakened until the loss no longer falls. Wrong labels do not mislead this choice much: a model that predicts the
    given labels of other samples well also predicts their true labels well, and a model that fits wrong labels predicts
    neither.

    Args:
        features: (N, D), standardized.
        labels: (N,), int64, in [0, K); at least two classes occur.
        num_classes: K.
        folds: Number of folds, at least 2.
        seed: Draws the folds.

    Returns:
        Logits (N, K), float32, and the inverse penalty strength C that was chosen.

    Raises:
        ValueError: If there are fewer than two folds, or fewer samples than folds.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]]).repeat(20, 1)
        >>> logits, _ = out_of_fold_logits(x, torch.arange(2).repeat(20), 2)
        >>> bool((logits.argmax(1) == torch.arange(2).repeat(20)).all())
        True
    """
    fold = spread_over_folds(labels, folds, seed)
    with measuring_precision(features.device):
        logits = features.new_empty(len(features), num_classes)
        strength, model = _best_model(features, labels, num_classes, fold == 0)
        for number in range(folds):
            held = fold == number
            if number:
                model = _fit(features[~held], labels[~held], num_classes, strength)
            logits[held] = _logits(model, features[held])
    return logits, strength


def held_out_logits(
    features: Tensor, labels: Tensor, queries: Tensor, num_classes: int, *, folds: int = 5, seed: int = 0
) -> tuple[Tensor, float]:
    """Return the logits (M, K) that a logistic regression of features and labels gives to queries (M, D).

    The penalty is chosen as in :func:`out_of_fold_logits`, and its inverse strength C is returned too.

    Args:
        features: Features of the training set (N, D), standardized.
        labels: Labels of the training set (N,), int64, in [0, K); at least two classes occur.
        queries: Features of other samples (M, D), standardized in the same way.
        num_classes: K.
        folds: Number of folds, of which one is used to choose the penalty.
        seed: Draws the folds.

    Raises:
        ValueError: If there are fewer than two folds, or fewer samples than folds.
    """
    held = spread_over_folds(labels, folds, seed) == 0
    with measuring_precision(features.device):
        strength, _ = _best_model(features, labels, num_classes, held)
        return _logits(_fit(features, labels, num_classes, strength), queries), strength


def spread_over_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return the fold of each sample (N,): random, with each class spread as evenly over the folds as it can be.

    Raises:
        ValueError: If there are fewer than two folds, or fewer samples than folds.

    Example:
        >>> spread_over_folds(torch.tensor([0, 0, 0, 0, 1, 1]), 2, seed=0).bincount().tolist()
        [3, 3]
    """
    if not 2 <= folds <= len(labels):
        raise ValueError(
            f"the number of folds must be from 2 to the number of samples, which is {len(labels)}, got {folds}: set "
            f"another one with --folds"
        )
    key = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = (labels.cpu() + key).argsort()
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % folds
    return fold.to(labels.device)


def _best_model(features: Tensor, labels: Tensor, num_classes: int, held: Tensor) -> tuple[float, Tensor]:
    """Return the best strength by the loss on the held-out samples, and the model fitted with it to the others."""
    best, smallest, fitted = STRENGTHS[0], float("inf"), None
    kept, kept_labels = features[~held], labels[~held]
    model = features.new_zeros(num_classes, features.shape[1] + 1)
    for strength in STRENGTHS:
        fitted = _fit(kept, kept_labels, num_classes, strength, fitted)
        loss = float(torch.nn.functional.cross_entropy(_logits(fitted, features[held]).double(), labels[held]))
        if loss >= smallest:
            break
        best, smallest, model = strength, loss, fitted
    return best, model


def _fit(features: Tensor, labels: Tensor, num_classes: int, strength: float, start: Tensor | None = None) -> Tensor:
    tolerance = _TOLERANCE / num_classes * min(1.0, len(features) / _MANY)
    return fit_logistic(features, labels, num_classes, strength, start, tolerance=tolerance)


def _logits(model: Tensor, features: Tensor) -> Tensor:
    return features @ model[:, :-1].T + model[:, -1]
