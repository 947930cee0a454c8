"""Rank checkpoints or layers by how collapsed a target set is in their features, and compare with an outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from nc_tools.metrics.checks import checked_bank
from nc_tools.metrics.collapse.neural_collapse import neural_collapse
from nc_tools.metrics.transfer.transfer_report import TARGET_COLLAPSE


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlations of two quantities over the same candidates.

    Attributes:
        spearman: Spearman's rho; None if it is not defined (fewer than three pairs, or a constant quantity).
        kendall: Kendall's tau-b; None as for Spearman's rho.
        n: Number of pairs in which both values are finite.
    """

    spearman: float | None
    kendall: float | None
    n: int

    def __str__(self) -> str:
        """Return both correlations and the number of pairs as text."""
        if self.spearman is None or self.kendall is None:
            return f"not defined (n = {self.n})"
        return f"Spearman {self.spearman:+.2f}, Kendall {self.kendall:+.2f} (n = {self.n})"


@dataclass(frozen=True)
class Ranked:
    """A candidate in a ranking by collapse: a checkpoint or a layer.

    Attributes:
        name: Name of the candidate.
        collapse: Collapse measures of the target set in its features, by name.
        outcome: Result of the candidate, where higher is better; None if it is not known.
    """

    name: str
    collapse: Mapping[str, float]
    outcome: float | None = None


@dataclass(frozen=True)
class CollapseRanking:
    """Checkpoints or layers, the most collapsed first, and the rank correlation of each metric with the outcome.

    A correlation below 0 means that candidates in which the target set is more collapsed have better outcomes.

    Attributes:
        rows: The candidates, sorted.
        correlations: Rank correlation with the outcome, by the name of the collapse metric.
    """

    rows: tuple[Ranked, ...]
    correlations: Mapping[str, RankCorrelation]


def rank_by_collapse(
    features: Mapping[str, Tensor], labels: Tensor, outcomes: Mapping[str, float] | None = None, by: str = "nc1_pinv"
) -> CollapseRanking:
    """Rank checkpoints or layers by how collapsed the *training* part of a target set is in their features.

    The more collapsed the classes of a target task are in the features of a frozen model, the better the model tends to
    transfer to that task; the same holds for the layers of one model. With outcomes (such as accuracies of a probe),
    the rank correlations show whether that is true here. Do not give the test part.

    Source: Li, Liu, Zhou, Lu, Fernandez-Granda, Zhu and Qu (2022), who rank by nc1_pinv.

    Args:
        features: Features (N, D) of the same samples, by candidate; D may differ.
        labels: (N,), any integers.
        outcomes: Results by candidate; some may be missing.
        by: The measure that orders the rows, smallest first: nc1_pinv, nc1_trace or cdnv.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If there is no candidate, ``by`` is not one of the measures, an outcome has no candidate, shapes do
            not fit, there are fewer than two classes, or features are not finite.

    Example:
        >>> import torch
        >>> near, labels = torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1])
        >>> ranking = rank_by_collapse({"early": near, "late": near.sign() * 2 + near}, labels)
        >>> [row.name for row in ranking.rows]
        ['early', 'late']
    """
    if not features:
        raise ValueError("a ranking needs features of at least one checkpoint or layer, got none")
    if by not in TARGET_COLLAPSE:
        raise ValueError(f"by must be one of {', '.join(TARGET_COLLAPSE)}, got {by!r}")
    outcome_of = dict(outcomes or {})
    if unknown := [name for name in outcome_of if name not in features]:
        raise ValueError(
            f"every outcome must belong to a candidate, but {unknown[0]!r} is none of {', '.join(features)}: rename or "
            "remove it"
        )
    rows = []
    for name, values in features.items():
        x, y, _ = checked_bank(values, labels)
        collapse = neural_collapse(x, y)
        measures = {key: collapse[key] for key in TARGET_COLLAPSE if key in collapse}
        rows.append(Ranked(name, measures, outcome_of.get(name)))
    rows.sort(key=lambda row: row.collapse.get(by, math.inf))
    return CollapseRanking(tuple(rows), correlations(rows))


def correlations(rows: Sequence[Ranked]) -> dict[str, RankCorrelation]:
    """Return the rank correlation of each collapse metric with the outcome, over the candidates that have both."""
    return {
        key: rank_correlation(*zip(*pairs, strict=True)) if pairs else RankCorrelation(None, None, 0)
        for key in TARGET_COLLAPSE
        for pairs in [[(r.collapse[key], r.outcome) for r in rows if key in r.collapse and r.outcome is not None]]
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Return Spearman's rho and Kendall's tau-b of paired values; pairs with NaN or inf are left out.

    Args:
        first: n values.
        second: n values.

    Raises:
        ValueError: If the two have different lengths.

    Example:
        >>> rank_correlation([1.0, 2.0, 4.0], [0.9, 0.8, 0.1]).spearman
        -1.0
    """
    if len(first) != len(second):
        raise ValueError(f"paired values must have the same length, got {len(first)} and {len(second)}")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return RankCorrelation(None, None, len(pairs))
    from scipy import stats  # here, because the import takes half a second

    a, b = zip(*pairs, strict=True)
    rho, tau = stats.spearmanr(a, b).statistic, stats.kendalltau(a, b).statistic
    return RankCorrelation(round(float(rho), 12), round(float(tau), 12), len(pairs))
