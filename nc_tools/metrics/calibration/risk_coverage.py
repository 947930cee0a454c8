"""Selective prediction: the error that remains if the least confident predictions are withheld."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores


@dataclass(frozen=True)
class RiskCoverage:
    """The risk-coverage curve and the areas under it.

    Attributes:
        coverage: Shares of samples that get a prediction (N,), 1/N to 1, the most confident samples first.
        risk: Share of wrong predictions among them (N,).
        aurc: Mean of the risk over coverage; 0 is best.
        excess_aurc: AURC minus that of the same errors in the best possible order: the cost of the ranking.
    """

    coverage: Tensor
    risk: Tensor
    aurc: float
    excess_aurc: float


def risk_coverage(logits: Tensor, labels: Tensor, confidence: Tensor | None = None) -> RiskCoverage:
    """Return the risk-coverage curve: the error as the least confident predictions are withheld.

    risk(n) = errors among the n most confident samples / n; AURC = mean over n. A model may be well calibrated and
    still rank its own errors badly: accuracy, calibration and ranking are three properties. Samples of equal confidence
    share their errors, so the order of the data set does not matter.

    Source: Geifman, Uziel and El-Yaniv (2019), "Bias-reduced uncertainty estimation", section 3 (AURC and excess AURC).

    Args:
        logits: (N, K), N >= 1; the largest is the prediction.
        labels: (N,).
        confidence: (N,), higher means more confident: any score, such as one of ``nc_tools.ood``. None for the largest
            softmax probability.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the confidence has another length or is not finite, or as ``calibration``.

    Example:
        >>> curve = risk_coverage(torch.tensor([[4.0, 0.0], [3.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
        >>> [round(float(r), 3) for r in curve.risk], round(curve.aurc, 3), curve.excess_aurc
        ([0.0, 0.0, 0.333], 0.111, 0.0)
    """
    scores, target = checked_scores(logits, labels)
    wrong = (scores.argmax(dim=1) != target).double()
    ranking = scores.double().log_softmax(dim=1).amax(dim=1) if confidence is None else confidence.detach().double()
    if ranking.shape != wrong.shape:
        raise ValueError(f"confidence must hold one number for each sample ({len(wrong)},), got {tuple(ranking.shape)}")
    if not bool(ranking.isfinite().all()):
        raise ValueError(
            "confidence must be finite, but it holds NaN or inf: remove these samples, or check the model that "
            "produced them"
        )
    ordered, order = ranking.to(wrong.device).sort(descending=True)
    tie = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    sums = torch.zeros(len(wrong), 2, dtype=torch.float64, device=wrong.device)
    sums.index_add_(0, tie, torch.stack([wrong[order], torch.ones_like(wrong)], dim=1))
    rank = torch.arange(1, len(wrong) + 1, dtype=torch.float64, device=wrong.device)
    risk = (sums[:, 0] / sums[:, 1].clamp(min=1))[tie].cumsum(0) / rank
    best_aurc = (wrong.sort().values.cumsum(0) / rank).mean()
    aurc, excess = torch.stack([risk.mean(), risk.mean() - best_aurc]).tolist()
    return RiskCoverage(coverage=rank / len(wrong), risk=risk, aurc=aurc, excess_aurc=excess)
