"""Cross-entropy of normalized logits."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._one_softmax import of_nll
from nc_tools.losses._rows import Reduction, RowReduction, expected_loss, rows_of
from nc_tools.losses.logit_loss import LogitLoss


def logit_norm(logits: Tensor, labels: Tensor, temperature: float = 0.04, reduction: Reduction = "none") -> Tensor:
    """Return the cross-entropy of z / (||z|| temperature), for each sample or reduced. See :class:`LogitNormLoss`.

    Args:
        logits: (N, K).
        labels: (N,), int64.
        temperature: Positive.
        reduction: "none", "mean" or "sum".

    Returns:
        (N,), or a scalar.

    Example:
        >>> z, y = torch.tensor([[3.0, 4.0], [6.0, 8.0]]), torch.tensor([0, 0])
        >>> logit_norm(z, y, 1.0)  # the norm does not matter
        tensor([0.7981, 0.7981])
    """
    return rows_of(logits, labels).apply(lambda z, y, r: _of_directions(z, y, temperature, r), reduction)


def _of_directions(z: Tensor, labels: Tensor, temperature: float, reduction: RowReduction) -> Tensor:
    return of_nll(normalize(z, 1 / temperature), labels, _nll_itself, reduction)


def _nll_itself(nll: Tensor) -> tuple[Tensor, Tensor]:
    return nll, torch.ones_like(nll)


class LogitNormLoss(LogitLoss):
    """LogitNorm: cross-entropy of z / (||z|| tau).

    Under cross-entropy the norm of the logits keeps growing for samples that are already right, and with it the
    confidence, also on inputs of no class. Here only the direction is trained. Among the losses for out-of-distribution
    detection it is the closest to a cosine head, and it works with any head. Source: Wei et al. 2022. A row of zeros
    stays zero here; the paper adds a small number to each norm instead. Predictions use the plain logits: fit a
    temperature before you read probabilities.

    Args:
        temperature: tau, positive; .04 in the paper for CIFAR-10.

    Raises:
        ValueError: If the temperature is not positive and finite.

    Example:
        >>> LogitNormLoss(1.0)(torch.tensor([[3.0, 4.0]]), torch.tensor([0]))
        tensor(0.7981)
    """

    def __init__(self, temperature: float = 0.04) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def per_sample_from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each sample's normalized logits (N,)."""
        return _of_directions(logits, labels, self.temperature, "none")

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch."""
        return _of_directions(logits, labels, self.temperature, "mean")

    def per_sample_from_probabilities(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each sample (N,) to its probabilities."""
        return expected_loss(normalize(logits, 1 / self.temperature).log_softmax(1), targets)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"
