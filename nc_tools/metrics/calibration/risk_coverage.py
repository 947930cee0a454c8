"""Selective prediction: what error is left if the least sure answers are withheld."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores


@dataclass(frozen=True)
class RiskCoverage:
    """The risk-coverage curve and its areas.

    Attributes:
        coverage: (N,) shares of samples answered, 1/N to 1, surest first.
        risk: (N,) share of wrong answers among them.
        aurc: Mean of the risk over coverage; 0 is best.
        excess_aurc: AURC less that of the same errors in the best possible order: what the ranking costs.
    """

    coverage: Tensor
    risk: Tensor
    aurc: float
    excess_aurc: float


def risk_coverage(logits: Tensor, labels: Tensor, confidence: Tensor | None = None) -> RiskCoverage:
    """Return how the error falls as more of the unsure answers are withheld.

    risk(n) = errors among the n surest / n; AURC = mean over n. A model may be well calibrated and still rank its own
    errors badly; accuracy, calibration and this are three things. Samples of equal confidence share their errors, so
    the order of the data set does not matter.

    Source: Geifman, Uziel and El-Yaniv (2019), "Bias-reduced uncertainty estimation", section 3 (AURC and excess AURC).

    Args:
        logits: (N, K), N >= 1; the largest is the answer.
        labels: (N,).
        confidence: (N,), higher is surer: any score, such as one of ``nc_tools.ood``. None: the largest softmax
            probability.

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If the confidence has another length or is not finite, or as ``calibration``.

    Example:
        >>> found = risk_coverage(torch.tensor([[4.0, 0.0], [3.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
        >>> [round(float(r), 3) for r in found.risk], round(found.aurc, 3), found.excess_aurc
        ([0.0, 0.0, 0.333], 0.111, 0.0)
    """
    scores, target = checked_scores(logits, labels)
    wrong = (scores.argmax(dim=1) != target).double()
    sure = scores.double().log_softmax(dim=1).amax(dim=1) if confidence is None else confidence.detach().double()
    if sure.shape != wrong.shape:
        raise ValueError(f"confidence must hold one number for each sample ({len(wrong)},), got {tuple(sure.shape)}")
    if not bool(sure.isfinite().all()):
        raise ValueError("confidence must be finite, but some of it is NaN or inf")
    ordered, order = sure.to(wrong.device).sort(descending=True)
    tie = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    sums = torch.zeros(len(wrong), 2, dtype=torch.float64, device=wrong.device)
    sums.index_add_(0, tie, torch.stack([wrong[order], torch.ones_like(wrong)], dim=1))
    rank = torch.arange(1, len(wrong) + 1, dtype=torch.float64, device=wrong.device)
    risk = (sums[:, 0] / sums[:, 1].clamp(min=1))[tie].cumsum(0) / rank
    best = (wrong.sort().values.cumsum(0) / rank).mean()
    aurc, excess = torch.stack([risk.mean(), risk.mean() - best]).tolist()
    return RiskCoverage(coverage=rank / len(wrong), risk=risk, aurc=aurc, excess_aurc=excess)
