"""What every measure of logits asks of its input, asked once and in one place."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) in float32 or float64 and labels (N,) in int64 on the same device, both checked.

    Args:
        logits: (N, K), any floating type. They are never taken for probabilities, whatever their range.
        labels: (N,), integers in [0, K).

    Raises:
        TypeError: If the logits are not floating-point or the labels not integers.
        ValueError: If shapes do not fit, there is no sample, a label is out of range or a logit is not
            finite.
    """
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating-point scores before the softmax, got {logits.dtype}")
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"logits must have the shape (N, K), got {tuple(logits.shape)}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have the shape ({len(logits)},) to fit the logits, got {tuple(labels.shape)}")
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {labels.dtype}")
    if len(labels) == 0:
        raise ValueError("a measure needs at least one sample, got none")
    scores = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
    target = labels.to(scores.device).long()
    outside = ((target < 0) | (target >= scores.shape[1])).sum()
    broken = (~scores.isfinite().all(dim=1)).sum()
    outside_count, broken_count = torch.stack([outside, broken]).tolist()
    if outside_count:
        raise ValueError(f"labels must lie in [0, {scores.shape[1]}), but {outside_count} of them do not")
    if broken_count:
        raise ValueError(f"logits must be finite, but {broken_count} of {len(scores)} samples hold NaN or inf")
    return scores, target
