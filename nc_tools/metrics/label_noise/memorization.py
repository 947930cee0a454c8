"""Memorization: where a model puts the samples whose labels are wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.checks import check_finite, checked_scores


def memorization(features: Tensor, logits: Tensor, given: Tensor, true: Tensor) -> dict[str, float]:
    """Measure how far mislabeled samples have moved from their true class to the class of their label.

    A model that ignores the noise keeps a mislabeled sample with its true class; one that memorizes carries it over.
    Over the mislabeled samples (given != true), with mu_k the mean feature of class k over the samples that are
    labeled right, and s^2 = mean_k ||mu_k - mean_j mu_j||^2:

        distance_true    mean ||h - mu_true|| / s
        distance_given   mean ||h - mu_given|| / s
        carried_over     share that lies nearer to mu_given than to mu_true
        fitted           share that is classified as its (wrong) label
        recovered        share that is classified as its true class

    The first is the memorization of Nguyen et al. 2023 (section 3), with two differences: their means are those of test
    samples, and ours is divided by the spread of the means, without which a head that scales features up would seem to
    memorize more. The last two are how Liu et al. 2020 (figure 1) tell early learning from memorization. For reporting
    alone: it reads true labels, so nothing may be chosen by it.

    Args:
        features: (N, D).
        logits: (N, K).
        given: (N,), the labels trained on.
        true: (N,).

    Returns:
        The quantities by name; none if no label is wrong, no distances if a class of a mislabeled sample has no sample
        that is labeled right or all means coincide.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit or a label is out of range.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> told = memorization(h, h, given=torch.tensor([0, 1, 1]), true=torch.tensor([0, 1, 0]))
        >>> told["carried_over"], told["fitted"], told["recovered"]
        (1.0, 1.0, 0.0)
    """
    check_features_and_labels(features, given)
    check_finite("features", features)
    scores, asked = checked_scores(logits, given)
    _, truth = checked_scores(logits, true)
    wrong = asked != truth
    if not bool(wrong.any()):
        return {}
    decided = scores.argmax(1)[wrong]
    values = {
        "fitted": float((decided == asked[wrong]).double().mean()),
        "recovered": float((decided == truth[wrong]).double().mean()),
    }
    with measuring_precision(features.device):
        x = at_least_float32(features.detach())
        counts, sums = class_sums(x[~wrong], truth[~wrong], scores.shape[1])
        means = sums / counts[:, None]  # NaN for a class without a sample, and so no distance to it
        centered = means[counts > 0] - means[counts > 0].mean(0)
        spread = centered.square().sum(1).mean().sqrt()
        moved = x[wrong].double()
        to_true = torch.linalg.vector_norm(moved - means[truth[wrong]], dim=1)
        to_given = torch.linalg.vector_norm(moved - means[asked[wrong]], dim=1)
        told = torch.stack([to_true.mean() / spread, to_given.mean() / spread, (to_given < to_true).double().mean()])
    if bool(told.isfinite().all()):
        values |= dict(zip(("distance_true", "distance_given", "carried_over"), told.tolist(), strict=True))
    return values
