"""How well every score separates the test set from every set of outliers, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from nc_tools.ood.ood_score import OODScore, UndefinedScoreError, package_scores
from nc_tools.ood.separation import separation
from nc_tools.ood.training_set import TrainingSet
from nc_tools.records import Collected


def ood_report(
    train: Collected,
    test: Collected,
    outliers: Mapping[str, Collected],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scores: Sequence[OODScore] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Measure how well each score separates the test set from each set of outliers.

    Use it in your own loop: collect the training subset, the test set and the outliers in eval mode, without
    augmentation, and call this once. Scores are fitted on the training set alone; nothing is tuned on outliers. They
    read ``embedded``, the features that the head multiplies by its weight. A score that is not defined for the data or
    the head has no key. For example, NCI and fDBD have none without a weight, ViM and NECO if no direction is left
    outside the principal space, and Mahalanobis and RMDS if the features do not vary within classes.

    Args:
        train: The training set.
        test: In-distribution images that were not trained on.
        outliers: Images of no class, by a name such as "near".
        weight: (K, D), with the head's scale in it; None for a head that is not affine.
        bias: (K,) or None.
        scores: Which scores to compute; None for all of :data:`nc_tools.ood.SCORES`.
        progress: Called with the name of each score before it is fitted.

    Returns:
        ``<set>/<score>/auroc``, ``aupr_in``, ``aupr_out`` and ``fpr95``; see :func:`separation`.

    Raises:
        TypeError: If features or logits are not floating-point, labels are not integers, or an entry of ``scores`` is
            not a score.
        ValueError: If there is no set of outliers or one is empty, two scores share a name, shapes do not fit, or
            values are not finite.

    Example:
        >>> import torch
        >>> from nc_tools.ood import KNN, MaxLogit
        >>> def part(x): return Collected(x, x, x, (x[:, 1] > x[:, 0]).long())
        >>> x = torch.eye(2).repeat(30, 1)
        >>> report = ood_report(part(x), part(x), {"far": part(-x)}, weight=torch.eye(2), scores=[KNN(k=5), MaxLogit()])
        >>> report["far/knn/auroc"], report["far/max_logit/fpr95"]
        (1.0, 0.0)
    """
    if not outliers:
        raise ValueError('a report needs at least one set of outliers, got none: pass outliers={"near": ...}')
    for name, part in outliers.items():
        if len(part.features) == 0:
            raise ValueError(f"the set of outliers {name!r} needs at least one sample, got none")
    chosen = _checked_scores(scores)
    train_set = TrainingSet.checked(train.embedded, train.logits, train.labels, weight, bias)
    report: dict[str, float] = {}
    for score in chosen:
        if progress is not None:
            progress(score.name)
        try:
            score.fit_training_set(train_set)
        except UndefinedScoreError:
            continue
        inside = score.score_samples(test.embedded, test.logits)
        for name, part in outliers.items():
            values = separation(inside, score.score_samples(part.embedded, part.logits))
            report |= {f"{name}/{score.name}/{key}": value for key, value in values.items()}
    return report


def _checked_scores(scores: Sequence[OODScore] | None) -> list[OODScore]:
    """Return the scores of a report, or raise an error if one is not built or two share a name."""
    chosen = [cls() for cls in package_scores()] if scores is None else list(scores)
    for score in chosen:
        if not isinstance(score, OODScore):
            raise TypeError(f"scores must hold objects such as KNN(k=50), got {score!r}: see nc_tools.ood.SCORES")
    names = [score.name for score in chosen]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two scores of a report have the name {repeated.pop()!r}: put them into separate reports")
    return chosen
