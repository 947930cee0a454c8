"""Metrics of out-of-distribution detection; those that read features alone are shared by models of equal features."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nc_tools._support.by_content import ByContent
from nc_tools.ood import ood_report
from nc_tools.ood.ood_score import package_scores
from nc_tools.records import Collected


def ood_values(
    train: Collected,
    test: Collected,
    outliers: Mapping[str, Collected],
    weight: Tensor | None,
    bias: Tensor | None,
    kept_results: ByContent | None,
) -> dict[str, float]:
    """Return the values of :func:`~nc_tools.ood.ood_report` for all scores.

    Args:
        train: The training set.
        test: Images of the same classes that were not trained on.
        outliers: Images of no class, by name.
        weight: Class vectors (K, D) with the head's scale; None for a head that is not affine.
        bias: (K,) or None.
        kept_results: Results that are kept by the content of the features; None to compute everything.
    """
    if kept_results is None:
        return ood_report(train, test, outliers, weight, bias)
    scores = [cls() for cls in package_scores()]
    of_features = [score for score in scores if score.reads_features_alone]
    read = [train.embedded, train.labels, test.embedded, *(part.embedded for part in outliers.values())]
    values = kept_results(
        f"outliers {list(outliers)}", read, lambda: ood_report(train, test, outliers, scores=of_features)
    )
    others = [score for score in scores if not score.reads_features_alone]
    return values | ood_report(train, test, outliers, weight, bias, scores=others)
