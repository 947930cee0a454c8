"""Measures of a final model beyond accuracy and NC0 to NC4; a measure is left out where it would cost too much."""

from __future__ import annotations

from torch import Tensor, nn

from nc_tools._support.class_sums import class_sums
from nc_tools.metrics import (
    brier_decomposition,
    classwise_calibration_error,
    cosine_collapse,
    debiased_calibration_error,
    grouped_calibration,
    hyperspherical_uniformity,
    minority_collapse,
    risk_coverage,
    seli_distance,
    stable_rank,
    top_label_calibration_error,
    uniform_accuracy,
    uniform_duality,
    variability_collapse_index,
)

# Largest N x K for the decomposition of the Brier score, which then takes about 1 GB.
_MOST_PROBABILITIES = 3e7
# Largest N x D^2 for the covariance of the features: about ten seconds on a CPU core.
_MOST_PRODUCTS = 2e11
# Largest K for a K x K eigenvalue problem: about ten seconds.
_MOST_CLASSES = 2000
# Largest value of the smaller side of a weight matrix whose stable rank is computed.
_LARGEST_SIDE = 1024
_COSINES = {
    "minority_cosine": "cosine_rare",
    "majority_cosine": "cosine_frequent",
    "cross_cosine": "cosine_cross",
}


def further_calibration(logits: Tensor, labels: Tensor, class_counts: Tensor) -> dict[str, float]:
    """Return calibration by class and by group of classes, the Brier decomposition, AURC and uniform accuracy.

    Args:
        logits: (N, K).
        labels: (N,).
        class_counts: Training samples of each class (K,).

    Returns:
        "cal/ece_classwise", "cal_groups/few/ece", "gen/uniform_accuracy", and so on.
    """
    curve = risk_coverage(logits, labels)
    values = {
        "cal/ece_classwise": classwise_calibration_error(logits, labels),
        "cal/ece_top_label": top_label_calibration_error(logits, labels),
        "cal/aurc": curve.aurc,
        "cal/aurc_excess": curve.excess_aurc,
        "gen/uniform_accuracy": uniform_accuracy(logits, labels)["uniform_accuracy"],
    }
    if len(labels) > 1:
        values["cal/ece_debiased"] = debiased_calibration_error(logits, labels, resamples=1).value
    if logits.numel() <= _MOST_PROBABILITIES:
        parts = brier_decomposition(logits, labels)
        values |= {f"cal/brier_{name}": part for name, part in parts.items() if name != "brier"}
    groups = grouped_calibration(logits, labels, class_counts)
    return values | {f"cal_groups/{key}": value for key, value in groups.items()}


def further_collapse(features: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Return GNC2, cosines within and between classes, and the variability collapse index of features.

    Args:
        features: (N, D).
        labels: (N,), of at least two classes.
        num_classes: K.
    """
    counts, means = _class_means(features, labels, num_classes)
    values = hyperspherical_uniformity(means, counts) | cosine_collapse(features, labels, num_classes)
    if len(features) * features.shape[1] ** 2 <= _MOST_PRODUCTS:
        values |= variability_collapse_index(features, labels, num_classes)
    return values


def duality_with(weight: Tensor, features: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the uniform duality of class vectors and class means.

    Args:
        weight: (K, D).
        features: (N, D).
        labels: (N,), of at least two classes.
    """
    counts, means = _class_means(features, labels, len(weight))
    return uniform_duality(means, weight, counts)


def _class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    counts, sums = class_sums(features, labels, num_classes)
    return counts, sums / counts.clamp(min=1)[:, None]


def means_by_frequency(features: Tensor, labels: Tensor, class_counts: Tensor) -> dict[str, float]:
    """Return the cosines of rare and of frequent class means, and their distance to SELI and to a simplex.

    Args:
        features: (N, D).
        labels: (N,).
        class_counts: Training samples of each class (K,).

    Returns:
        The quantities by name; none if all classes are equally frequent, fewer than three classes have training
        samples, or a class has no sample here.
    """
    num_classes = len(class_counts)
    counts, sums = class_sums(features, labels, num_classes)
    if not _uneven(class_counts) or bool((counts == 0).any()):
        return {}
    means = sums / counts[:, None]
    cosines = minority_collapse(means - means.mean(dim=0), class_counts)
    values = {name: cosines[key] for key, name in _COSINES.items() if key in cosines}
    return values | (seli_distance(class_counts, means=means) if num_classes <= _MOST_CLASSES else {})


def class_vector_geometry(weight: Tensor, class_counts: Tensor) -> dict[str, float]:
    """Return minority collapse, the distances to SELI and to a simplex, and the stable rank of the class vectors.

    Args:
        weight: (K, D).
        class_counts: Training samples of each class (K,).

    Returns:
        The quantities by name; only the stable rank if all classes are equally frequent or fewer than three have
        samples, and none if the weight is zero or not finite.
    """
    if not bool(weight.isfinite().all()) or not bool(weight.any()):
        return {}
    values = {"stable_rank": stable_rank(weight)}
    if not _uneven(class_counts):
        return values
    values |= minority_collapse(weight, class_counts)
    return values | (seli_distance(class_counts, weight=weight) if len(weight) <= _MOST_CLASSES else {})


def mean_stable_rank(model: nn.Module, without: nn.Module | None = None) -> dict[str, float]:
    """Return ``stable_rank``, the mean over the layers whose weight matrix has a side of at most 1,024.

    Args:
        model: The model with these layers.
        without: A part of the model that is left out, such as its head; None to leave out nothing.
    """
    ranks = []
    left_out = set() if without is None else set(without.modules())
    for module in model.modules():
        if module in left_out:
            continue
        weight = None if isinstance(module, nn.Embedding | nn.EmbeddingBag) else getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2 or not weight.is_floating_point():
            continue
        matrix = weight.detach().flatten(1)
        if min(matrix.shape) <= _LARGEST_SIDE and bool(matrix.isfinite().all()) and bool(matrix.any()):
            ranks.append(stable_rank(matrix.float()))
    return {"stable_rank": sum(ranks) / len(ranks)} if ranks else {}


def _uneven(class_counts: Tensor) -> bool:
    """Whether classes differ in frequency and at least three have samples: only then some are rare."""
    return len(class_counts) > 2 and bool(class_counts.min() < class_counts.max()) and int((class_counts > 0).sum()) > 2
