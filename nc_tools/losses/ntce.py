"""Cross-entropy over the samples of a batch instead of over the classes: NTCE and NONL."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32
from nc_tools.heads.normalize import normalize
from nc_tools.losses._arguments import check_temperature
from nc_tools.losses._pairwise import of_kept
from nc_tools.losses._rows import valid_labels
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.records import Batch, Outputs


def ntce(features: Tensor, weight: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the cross-entropy of picking each sample out of its batch by its class vector. See :class:`NTCELoss`.

    Args:
        features: (N, D); scaled to unit length here, as the class vectors are.
        weight: Class vectors (K, D).
        labels: (N,), int64. Samples with the label -100 do not count, and get 0.
        temperature: t, positive.

    Returns:
        (N,): -log(e^{w_{y_i} . u_i / t} / sum_j e^{w_{y_i} . u_j / t}), j over the batch.

    Example:
        >>> ntce(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), temperature=1.0)
        tensor([0.3133, 0.3133])
    """
    check_temperature(temperature)
    check_features_and_labels(features, labels)
    valid, kept = valid_labels(labels, len(weight))
    return of_kept(_ntce(features, weight, valid, temperature, kept), kept)


def nonl(features: Tensor, weight: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the NTCE of each sample without its class in the denominator. See :class:`NONLLoss`.

    Args:
        features: (N, D); scaled to unit length here, as the class vectors are.
        weight: Class vectors (K, D).
        labels: (N,), int64. Samples with the label -100 do not count, and get 0.
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
    check_temperature(temperature)
    check_features_and_labels(features, labels)
    valid, kept = valid_labels(labels, len(weight))
    return of_kept(_nonl(features, weight, valid, temperature, kept), kept)


def _ntce(features: Tensor, weight: Tensor, labels: Tensor, temperature: float, kept: Tensor | None) -> Tensor:
    scores, _, row = _scores(features, weight, labels, temperature)
    candidates = scores if kept is None else scores.masked_fill(~kept, torch.finfo(scores.dtype).min)
    return candidates.logsumexp(dim=1).index_select(0, row) - _own(scores, row)


def _nonl(features: Tensor, weight: Tensor, labels: Tensor, temperature: float, kept: Tensor | None) -> Tensor:
    scores, classes, row = _scores(features, weight, labels, temperature)
    same = classes.unsqueeze(1) == labels
    if kept is not None:  # a sample that does not count is no negative
        same = same | ~kept
    # The lowest finite number and not -inf, with which a row without a negative would put NaN into the gradient.
    negatives = scores.masked_fill(same, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    alone = same.all(dim=1).index_select(0, row)
    return (negatives.index_select(0, row) - _own(scores, row)).masked_fill(alone, 0.0)


def _scores(features: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Score every feature of a batch against the class vectors that the batch needs.

    A denominator depends on the class alone. So there is one row of scores for each class or, if there are more classes
    than samples, one for each sample: never more than N^2 numbers.

    Returns:
        Scores w_r . u_j / t (R, N) of unit vectors, the class of each row (R,), and the row of each sample (N,).
    """
    u = normalize(at_least_float32(features))
    vectors = at_least_float32(weight).to(u.dtype)
    if len(vectors) <= len(u):
        classes, row = torch.arange(len(vectors), device=u.device), labels
    else:
        classes, row = labels, torch.arange(len(u), device=u.device)
        vectors = vectors.index_select(0, labels)
    return normalize(vectors) / temperature @ u.T, classes, row


def _own(scores: Tensor, row: Tensor) -> Tensor:
    return scores.gather(0, row.unsqueeze(0)).squeeze(0)


class NTCELoss(PerSampleLoss):
    """Normalized-temperature cross-entropy: the class vector is the anchor, and the batch's samples are the candidates.

    Mean over i of -log(e^{w_{y_i} . u_i / t} / sum_{j in batch} e^{w_{y_i} . u_j / t}), w and u of unit length.
    Cross-entropy compares a sample with K class vectors. This loss compares a class vector with the N samples of the
    batch: if K is small, these are more negatives, and other ones at each step. Source: Koromilas et al. 2026 (neural
    collapse by design), whose results are among the strongest beside fixed ETF heads. It can be used with a fixed frame
    too.

    It costs O(N min(N, K) D) and needs no logits. Norms, biases and the head's scale get no gradient: use it with a
    head that normalizes and has a fixed scale, and calibrate before you read probabilities. It needs batches of several
    classes; larger batches are better.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features and class vectors.

    Args:
        temperature: t, positive; .1 to .2 are usual.

    Raises:
        ValueError: If the temperature is not positive and finite.

    Example:
        >>> NTCELoss()
        NTCELoss(temperature=0.1)
    """

    over_batch = True

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""
        return _ntce(outputs.embedded, outputs.weight, batch.labels, self.temperature, batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"


class NONLLoss(PerSampleLoss):
    """The negatives-only form of :class:`NTCELoss`: samples of the label's class are left out of the denominator.

    Mean over i of -log(e^{w_{y_i} . u_i / t} / sum_{j: y_j != y_i} e^{w_{y_i} . u_j / t}). Samples of one class do not
    repel each other, and the optimum is exact collapse at every temperature. The loss is below zero once a batch is
    separated, and 0 for a batch of one class. Source and use are those of :class:`NTCELoss`.

    Takes ``(outputs, batch)``, from ``nc_tools.watch(model)``, because it reads features and class vectors.

    Args:
        temperature: t, positive; .1 to .2 are usual.

    Raises:
        ValueError: If the temperature is not positive and finite.

    Example:
        >>> NONLLoss(temperature=0.2)
        NONLLoss(temperature=0.2)
    """

    over_batch = True

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def compute_per_sample(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the loss of each sample (N,)."""
        return _nonl(outputs.embedded, outputs.weight, batch.labels, self.temperature, batch.kept)

    def extra_repr(self) -> str:
        """Return the arguments for ``print(loss)``."""
        return f"temperature={self.temperature}"
