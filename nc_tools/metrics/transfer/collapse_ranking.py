"""Checkpoints and layers ranked by how collapsed a target set is in them, and what that says of the outcome."""

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
    """How two quantities order the same candidates.

    Attributes:
        spearman: Spearman's rho; None where it is not defined (fewer than three pairs, or a constant).
        kendall: Kendall's tau-b; likewise.
        n: Pairs in which both are finite.
    """

    spearman: float | None
    kendall: float | None
    n: int

    def __str__(self) -> str:
        """Write both with their n."""
        if self.spearman is None or self.kendall is None:
            return f"not defined (n = {self.n})"
        return f"Spearman {self.spearman:+.2f}, Kendall {self.kendall:+.2f} (n = {self.n})"


@dataclass(frozen=True)
class Ranked:
    """A candidate: a checkpoint, or a layer.

    Attributes:
        name: What it is called.
        collapse: Measures of the target set in it, by name.
        outcome: What was reached with it, higher being better; None where nobody has tried.
    """

    name: str
    collapse: Mapping[str, float]
    outcome: float | None = None


@dataclass(frozen=True)
class CollapseRanking:
    """Candidates, the most collapsed first, and for each measure its rank correlation to the outcome.

    A correlation below 0 says that candidates in which the target is more collapsed do better.
    """

    rows: tuple[Ranked, ...]
    correlations: Mapping[str, RankCorrelation]


def rank_by_collapse(
    features: Mapping[str, Tensor], labels: Tensor, outcomes: Mapping[str, float] | None = None, by: str = "nc1_pinv"
) -> CollapseRanking:
    """Rank candidates by the collapse of a target set's *training* part in their features, before anything is fitted.

    The more the classes of a target task have collapsed in a frozen model, the better it tends to transfer to it, and
    likewise for the layers of one model. With outcomes (accuracies of a probe, say) the rank correlations tell whether
    that held here. The test part has no place in it.

    Source: Li, Liu, Zhou, Lu, Fernandez-Granda, Zhu and Qu (2022), who rank by nc1_pinv.

    Args:
        features: Features (N, D) of the same samples by candidate; D may differ.
        labels: (N,), any integers.
        outcomes: What was reached, by candidate; some may be missing.
        by: Which of nc1_pinv, nc1_trace and cdnv orders the rows; smaller first.

    Raises:
        TypeError: If labels are not integers or features not floating-point.
        ValueError: If there is no candidate, ``by`` is none of the measures, an outcome has no candidate, shapes do not
            fit, there are fewer than two classes, or features are not finite.

    Example:
        >>> import torch
        >>> near, labels = torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1])
        >>> ranking = rank_by_collapse({"early": near, "late": near.sign() * 2 + near}, labels)
        >>> [row.name for row in ranking.rows]
        ['early', 'late']
    """
    if not features:
        raise ValueError("a ranking needs at least one candidate, got none")
    if by not in TARGET_COLLAPSE:
        raise ValueError(f"candidates are ranked by {', '.join(TARGET_COLLAPSE)}, got {by!r}")
    reached = dict(outcomes or {})
    if strange := [name for name in reached if name not in features]:
        raise ValueError(
            f"every outcome must belong to a candidate, and {strange[0]!r} does not: {', '.join(features)}"
        )
    rows = []
    for name, values in features.items():
        x, y, _ = checked_bank(values, labels)
        told = neural_collapse(x, y)
        rows.append(Ranked(name, {k: told[k] for k in TARGET_COLLAPSE if k in told}, reached.get(name)))
    rows.sort(key=lambda row: row.collapse.get(by, math.inf))
    return CollapseRanking(tuple(rows), correlations(rows))


def correlations(rows: Sequence[Ranked]) -> dict[str, RankCorrelation]:
    """Return the rank correlation of each measure to the outcome, over the rows that have both."""
    return {
        key: rank_correlation(*zip(*pairs, strict=True)) if pairs else RankCorrelation(None, None, 0)
        for key in TARGET_COLLAPSE
        for pairs in [[(r.collapse[key], r.outcome) for r in rows if key in r.collapse and r.outcome is not None]]
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Return Spearman's rho and Kendall's tau-b of paired values; pairs that are not finite are left out.

    Args:
        first: n values.
        second: n values.

    Raises:
        ValueError: If their numbers differ.

    Example:
        >>> rank_correlation([1.0, 2.0, 4.0], [0.9, 0.8, 0.1]).spearman
        -1.0
    """
    if len(first) != len(second):
        raise ValueError(f"paired values must be equally many, got {len(first)} and {len(second)}")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return RankCorrelation(None, None, len(pairs))
    from scipy import stats  # late: half a second that other measures need not pay

    a, b = zip(*pairs, strict=True)
    rho, tau = stats.spearmanr(a, b).statistic, stats.kendalltau(a, b).statistic
    return RankCorrelation(round(float(rho), 12), round(float(tau), 12), len(pairs))
