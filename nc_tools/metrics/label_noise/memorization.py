"""Memorization of wrong labels: where a model places mislabeled samples."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.checks import check_finite, checked_scores


def memorization(features: Tensor, logits: Tensor, given_labels: Tensor, true_labels: Tensor) -> dict[str, float]:
    """Measure how far mislabeled samples have moved from their true class to the class of their label.

    A model that ignores the noise keeps a mislabeled sample near its true class; a model that memorizes moves it to the
    class of its label. Over the mislabeled samples, with mu_k the mean feature of class k over the correctly labeled
    samples, and s^2 = mean_k ||mu_k - mean_j mu_j||^2:

        distance_true    mean ||h - mu_true|| / s
        distance_given   mean ||h - mu_given|| / s
        carried_over     share that is closer to mu_given than to mu_true
        fitted           share that is classified as its (wrong) label
        recovered        share that is classified as its true class

    ``distance_true`` is the memorization of Nguyen et al. 2023 (section 3), with two differences: their means are those
    of test samples, and here the distance is divided by the spread s of the means, because otherwise a head that scales
    features up would seem to memorize more. Liu et al. 2020 (figure 1) use ``fitted`` and ``recovered`` to distinguish
    early learning from memorization. For reporting only: it reads true labels, so do not choose anything by it.

    Args:
        features: (N, D).
        logits: (N, K).
        given_labels: (N,), the labels used in training.
        true_labels: (N,).

    Returns:
        The quantities by name; none if no label is wrong. ``distance_true``, ``distance_given`` and ``carried_over``
        are missing if the true or given class of a mislabeled sample has no correctly labeled sample, or if all means
        are equal.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, or a feature or logit is not finite.

    Example:
        >>> h = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> values = memorization(h, h, given_labels=torch.tensor([0, 1, 1]), true_labels=torch.tensor([0, 1, 0]))
        >>> values["carried_over"], values["fitted"], values["recovered"]
        (1.0, 1.0, 0.0)
    """
    check_features_and_labels(features, given_labels)
    check_finite("features", features)
    scores, given = checked_scores(logits, given_labels)
    _, true = checked_scores(logits, true_labels)
    wrong = given != true
    if not bool(wrong.any()):
        return {}
    decisions = scores.argmax(1)[wrong]
    values = {
        "fitted": float((decisions == given[wrong]).double().mean()),
        "recovered": float((decisions == true[wrong]).double().mean()),
    }
    with measuring_precision(features.device):
        x = at_least_float32(features.detach())
        counts, sums = class_sums(x[~wrong], true[~wrong], scores.shape[1])
        means = sums / counts[:, None]  # NaN for a class without a sample: then the distances are left out below
        centered = means[counts > 0] - means[counts > 0].mean(0)
        spread = centered.square().sum(1).mean().sqrt()
        mislabeled = x[wrong].double()
        to_true = torch.linalg.vector_norm(mislabeled - means[true[wrong]], dim=1)
        to_given = torch.linalg.vector_norm(mislabeled - means[given[wrong]], dim=1)
        carried_over = (to_given < to_true).double().mean()
        distances = torch.stack([to_true.mean() / spread, to_given.mean() / spread, carried_over])
    if bool(distances.isfinite().all()):
        values |= dict(zip(("distance_true", "distance_given", "carried_over"), distances.tolist(), strict=True))
    return values
