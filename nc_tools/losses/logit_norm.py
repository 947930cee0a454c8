"""Cross-entropy of normalized logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._one_softmax import Reduction, of_surprise
from nc_tools.losses.per_sample import PerSampleLoss, checked_logits
from nc_tools.records import Batch, Outputs


def logit_norm(logits: Tensor, labels: Tensor, temperature: float = 0.04, reduction: Reduction = "none") -> Tensor:
    """Cross-entropy of z / (||z|| temperature), per sample or as their mean. See :class:`LogitNormLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        temperature: Positive.
        reduction: "none" or "mean".

    Returns:
        (N,), or a scalar.

    Example:
        >>> z, y = torch.tensor([[3.0, 4.0], [6.0, 8.0]]), torch.tensor([0, 0])
        >>> logit_norm(z, y, 1.0)  # the norm does not matter
        tensor([0.7981, 0.7981])
    """
    z = checked_logits(logits, labels)
    return of_surprise(normalize(z, 1 / temperature), labels, lambda s: (s, torch.ones_like(s)), reduction)


class LogitNormLoss(PerSampleLoss):
    """LogitNorm: cross-entropy of z / (||z|| tau).

    Under cross-entropy the logits' norm keeps growing on samples that are already right, and with it the confidence,
    also on inputs of no class. Here only the direction is trained: the detection anchor that lies closest to a cosine
    head, with any head. Source: Wei et al. 2022; a row of zeros stays zero here, instead of a small number added
    to each norm. Calibrate with a temperature before reading probabilities: prediction uses the plain logits.

    Args:
        temperature: tau, positive; .04 is the paper's for CIFAR-10.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> LogitNormLoss()
        LogitNormLoss(temperature=0.04)
    """

    def __init__(self, temperature: float = 0.04) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the cross-entropy of each sample's normalized logits (N,)."""
        return logit_norm(outputs.logits, batch.labels, self.temperature)

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return logit_norm(outputs.logits, batch.labels, self.temperature, "mean")

    def extra_repr(self) -> str:
        """Show the temperature in the loss's printout."""
        return f"temperature={self.temperature}"
