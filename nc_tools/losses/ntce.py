"""Cross-entropy over the samples of a batch instead of over the classes: NTCE and NONL."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nc_tools.heads.normalize import normalize
from nc_tools.losses.loss_term import widen
from nc_tools.losses.per_sample import PerSampleLoss, checked_logits
from nc_tools.records import Batch, Outputs


def _scores(features: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Score every feature of a batch against the class vectors that the batch needs.

    A denominator depends on the class alone. So there is one row for each class, or, where the classes outnumber the
    samples, one for each sample: never more than N^2 numbers.

    Returns:
        Scores w_r . u_j / t (R, N) of unit vectors, the class of each row (R,), and the row of each sample (N,).
    """
    _checked_temperature(temperature)
    u = normalize(checked_logits(features, labels))
    vectors = widen(weight).to(u.dtype)
    if len(vectors) <= len(u):
        classes, row = torch.arange(len(vectors), device=u.device), labels
    else:
        classes, row = labels, torch.arange(len(u), device=u.device)
        vectors = vectors.index_select(0, labels)
    return normalize(vectors) / temperature @ u.T, classes, row


def _own(scores: Tensor, row: Tensor) -> Tensor:
    return scores.gather(0, row.unsqueeze(0)).squeeze(0)


def ntce(features: Tensor, weight: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Pick each sample out of its batch by its class vector, per sample. See :class:`NTCELoss`.

    Args:
        features: (N, D).
        weight: Class vectors (K, D).
        labels: (N,), int64.
        temperature: t, positive.

    Returns:
        (N,): -log(e^{w_{y_i} . u_i / t} / sum_j e^{w_{y_i} . u_j / t}), j over the batch.

    Example:
        >>> ntce(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), temperature=1.0)
        tensor([0.3133, 0.3133])
    """
    scores, _, row = _scores(features, weight, labels, temperature)
    return scores.logsumexp(dim=1).index_select(0, row) - _own(scores, row)


def nonl(features: Tensor, weight: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """The same over the samples of other classes alone, per sample. See :class:`NONLLoss`.

    Args:
        features: (N, D).
        weight: Class vectors (K, D).
        labels: (N,), int64.
        temperature: t, positive.

    Returns:
        (N,): -log(e^{w_{y_i} . u_i / t} / sum_{j: y_j != y_i} e^{w_{y_i} . u_j / t}); 0 where the batch holds no
        other class.

    Example:
        >>> nonl(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), temperature=1.0)
        tensor([-1., -1.])
        >>> nonl(torch.eye(2), torch.eye(2), torch.tensor([0, 0]))
        tensor([0., 0.])
    """
    scores, classes, row = _scores(features, weight, labels, temperature)
    same = classes.unsqueeze(1) == labels
    # The least finite number, not -inf: a row without a negative must not put NaN into the gradient.
    negatives = scores.masked_fill(same, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    alone = same.all(dim=1).index_select(0, row)
    return (negatives.index_select(0, row) - _own(scores, row)).masked_fill(alone, 0.0)


class NTCELoss(PerSampleLoss):
    """Normalized-temperature cross-entropy with the batch as the negative set: the class vector is the anchor.

    Mean over i of -log(e^{w_{y_i} . u_i / t} / sum_{j in batch} e^{w_{y_i} . u_j / t}), w and u of unit length.
    Cross-entropy compares a sample with K class vectors; this compares a class vector with the N samples of the batch,
    a larger and fresher set of negatives when K is small. Source: Koromilas et al. 2026 (neural collapse by design),
    whose results are among the strongest beside fixed ETF heads; it combines with a fixed frame too.

    O(N min(N, K) D), and no logits. Neither norms nor biases nor the head's scale get a gradient: take it with a
    head that normalizes and has a fixed scale, and calibrate before reading probabilities. Meaningful on batches of
    several classes: larger batches are better.

    Args:
        temperature: t, positive; .1 to .2 are usual.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> NTCELoss()
        NTCELoss(temperature=0.1)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = _checked_temperature(temperature)

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""
        return ntce(outputs.embedded, outputs.weight, batch.labels, self.temperature)

    def extra_repr(self) -> str:
        """Show the temperature in the loss's printout."""
        return f"temperature={self.temperature}"


class NONLLoss(PerSampleLoss):
    """Negatives-only form of :class:`NTCELoss`: samples of the own class are left out of the denominator.

    Mean over i of -log(e^{w_{y_i} . u_i / t} / sum_{j: y_j != y_i} e^{w_{y_i} . u_j / t}): without the own class there,
    samples of one class no longer repel each other, and the optimum is exact collapse at every temperature. It is
    below zero once a batch is separated. Same source, same uses; a batch of one class gives 0.

    Args:
        temperature: t, positive; .1 to .2 are usual.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> NONLLoss(temperature=0.2)
        NONLLoss(temperature=0.2)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = _checked_temperature(temperature)

    def per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""
        return nonl(outputs.embedded, outputs.weight, batch.labels, self.temperature)

    def extra_repr(self) -> str:
        """Show the temperature in the loss's printout."""
        return f"temperature={self.temperature}"


def _checked_temperature(temperature: float) -> float:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    return temperature
