"""Estimates of the transition matrix of label noise from a model's logits, and when not to use one."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.metrics.checks import checked_scores
from nc_tools.metrics.label_noise.transition import counted_transition

ENOUGH_SAMPLES = 20
"""Number of samples from which each row of an estimate should be computed, for :func:`transition_problem`."""


def anchor_transition(logits: Tensor, percentile: float = 0.7) -> Tensor:
    """Estimate the transition matrix from a model trained on noisy labels, at one anchor sample of each class.

    A sample that certainly belongs to class i has p(given j | x) = T_ij. The anchor of class i is the sample whose p_i
    lies at this percentile of the samples *that the model assigns to class i*: the largest p_i would be an outlier, or
    a label that the model has memorized. Labels are not used.

    Source: Patrini et al. 2017, section 4.2, eq. 12 and 13. For CIFAR-10 they take the 97th percentile of p_i over
    *all* samples. With ten equal classes this is the 70th percentile of the samples of class i. If a class has less
    than 3 % of all samples (34 equal classes or more, or a long tail), the 97th percentile falls on a sample of another
    class, and the diagonal entry is about 0. (Their code takes the largest p_i for CIFAR-100.)

    Args:
        logits: (N, K) of a model trained with cross-entropy on the noisy labels, without augmentation.
        percentile: In [0, 1]; 1 takes the sample with the largest p_i.

    Returns:
        (K, K), float64, rows summing to one; a class that no sample is assigned to has the row of the identity matrix.

    Raises:
        ValueError: If the percentile is outside [0, 1], or the logits have a wrong shape or are not finite.

    Example:
        >>> anchor_transition(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), percentile=1.0).argmax(1).tolist()
        [0, 1]
    """
    if not 0 <= percentile <= 1:
        raise ValueError(f"percentile must lie in [0, 1], got {percentile}")
    p, decided = _probabilities(logits)
    counts = decided.bincount(minlength=p.shape[1])
    # In the order of the decided class and, within it, of that class's probability.
    by_probability = p.gather(1, decided[:, None]).squeeze(1).argsort(stable=True)
    order = by_probability[decided[by_probability].argsort(stable=True)]
    rank = (percentile * (counts - 1).clamp(min=0)).round().long()
    place = (counts.cumsum(0) - counts + rank).clamp(max=len(p) - 1)
    eye = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    return torch.where(counts[:, None] > 0, p[order[place]], eye).cpu()


def confusion_transition(logits: Tensor, labels: Tensor) -> Tensor:
    """Estimate the transition matrix by counting given labels among the samples that a model assigns to each class.

    The predicted class replaces the true class: T_ij is the share of the given label j among the samples predicted as
    i. Give held-out samples: on its training samples, a model that has memorized the labels shows no noise. The
    estimate is good if the model errs much less often than the labels; its errors bias it towards more noise, which
    :func:`confident_transition` reduces.

    Args:
        logits: (N, K) of held-out samples.
        labels: Their given labels (N,).

    Returns:
        (K, K), float64, rows summing to one; a class that was never predicted has the row of the identity matrix.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, a label is out of range, or a logit is not finite.

    Example:
        >>> confusion_transition(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 1, 1])).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    scores, y = checked_scores(logits, labels)
    return counted_transition(scores.argmax(1), y, scores.shape[1]).cpu()


def confident_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the true class of each sample as confident learning estimates it (N,), -1 where no class is certain.

    The threshold of class j is the mean p_j of the samples labeled j. The estimate is the class with the largest p_j
    among the classes whose p_j is at or above their threshold.

    Source: Northcutt, Jiang and Chuang (2021, equations 1 and 2). cleanlab's code takes the largest p_j of all classes
    if several pass their threshold.

    Args:
        logits: (N, K) of samples that the model was not trained on.
        labels: Their given labels (N,).

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, a label is out of range, or a logit is not finite.

    Example:
        >>> z = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 1.0]])
        >>> confident_classes(z, torch.tensor([0, 0, 1, 1, 1])).tolist()
        [0, 0, 0, 1, 1]
    """
    scores, y = checked_scores(logits, labels)
    p, frequency = scores.double().softmax(1), y.bincount(minlength=scores.shape[1])
    sums = torch.zeros_like(p[0]).index_add(0, y, p.gather(1, y[:, None]).squeeze(1))
    # A class without a labeled sample has no threshold, so it is the estimate of no sample.
    threshold = torch.where(frequency > 0, sums / frequency.clamp(min=1), torch.inf)
    # A sample at its threshold passes, whatever the rounding of the mean.
    best, true = p.where(p >= threshold - 1e-6, -torch.inf).max(dim=1)
    return torch.where(best >= 0, true, -1).cpu()


def confident_joint(logits: Tensor, labels: Tensor) -> Tensor:
    """Estimate the joint distribution of true class and given label by confident learning.

    It counts pairs of the class of :func:`confident_classes` and the given label, over the samples that have such a
    class. Counts are scaled so that each given label has its frequency in the data. Give held-out or out-of-fold
    logits.

    Source: Northcutt, Jiang and Chuang (2021, equations 1 to 3).

    Args:
        logits: (N, K) of samples that the model was not trained on.
        labels: Their given labels (N,).

    Returns:
        Q (K, K), float64, summing to one: row i is the true class, column j the given label.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, a label is out of range, or a logit is not finite.

    Example:
        >>> z = 4 * torch.eye(2)[[0, 0, 0, 1, 1]]
        >>> confident_joint(z, torch.tensor([0, 0, 1, 1, 1])).round(decimals=1).tolist()
        [[0.4, 0.2], [0.0, 0.4]]
    """
    true, y, count = confident_classes(logits, labels), labels.cpu().long(), logits.shape[1]
    frequency, counted = y.bincount(minlength=count), true >= 0
    pairs = torch.bincount(true[counted] * count + y[counted], minlength=count**2).view(count, count).double()
    # Nothing is known about a label without a counted sample: it is assumed to be always right.
    pairs += torch.diag(((pairs.sum(0) == 0) & (frequency > 0)).double())
    return pairs * (frequency / pairs.sum(0).clamp(min=1)) / len(y)


def confident_transition(logits: Tensor, labels: Tensor) -> Tensor:
    """Estimate the transition matrix by confident learning: :func:`confident_joint` with rows that sum to one.

    Args:
        logits: (N, K) of samples that the model was not trained on.
        labels: Their given labels (N,).

    Returns:
        (K, K), float64; a class that :func:`confident_classes` gives to no sample has the row of the identity matrix.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, a label is out of range, or a logit is not finite.

    Example:
        >>> z = 4 * torch.eye(2)[[0, 0, 0, 1, 1]]
        >>> confident_transition(z, torch.tensor([0, 0, 1, 1, 1])).round(decimals=2).tolist()
        [[0.67, 0.33], [0.0, 1.0]]
    """
    joint = confident_joint(logits, labels)
    totals = joint.sum(1, keepdim=True)
    return torch.where(totals > 0, joint / totals.where(totals > 0, 1.0), torch.eye(len(joint), dtype=joint.dtype))


def transition_problem(matrix: Tensor, samples: Tensor, enough: int = ENOUGH_SAMPLES) -> str | None:
    """Return one sentence that says why an estimated transition matrix should not be used, or None.

    A loss corrected by a wrong matrix is worse than the plain loss. Two things show a wrong matrix: a row that was
    estimated from few samples, and a row whose largest entry is not on the diagonal, which means that the most frequent
    label of a class would be a wrong one.

    Args:
        matrix: The estimate (K, K), rows are true classes.
        samples: Number of samples that each row comes from (K,): those that the model assigns to the class.
        enough: Number of samples that a row needs.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> transition_problem(torch.eye(2), torch.tensor([40, 3]))
        'the model assigns fewer than 20 samples to 1 of 2 classes (class 1: 3)'
        >>> transition_problem(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([40, 40]))
        'the largest entry of 1 of 2 rows is not on the diagonal (row 1: 0.6 in column 0, 0.4 on the diagonal)'
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or samples.shape != matrix.shape[:1]:
        raise ValueError(
            f"matrix (K, K) and samples (K,) must fit each other, got {tuple(matrix.shape)} and {tuple(samples.shape)}"
        )
    few = (samples < enough).nonzero().flatten().tolist()
    if few:
        listed = ", ".join(f"class {k}: {int(samples[k])}" for k in few[:3]) + (", ..." if len(few) > 3 else "")
        return f"the model assigns fewer than {enough} samples to {len(few)} of {len(samples)} classes ({listed})"
    largest = matrix.argmax(1)
    off = (matrix.amax(1) > matrix.diagonal()).nonzero().flatten().tolist()
    if off:
        row, column = off[0], int(largest[off[0]])
        return (
            f"the largest entry of {len(off)} of {len(matrix)} rows is not on the diagonal (row {row}: "
            f"{float(matrix[row, column]):.3g} in column {column}, {float(matrix[row, row]):.3g} on the diagonal)"
        )
    return None


def _probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities (N, K), float64, and the most likely class of each sample (N,)."""
    scores, _ = checked_scores(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
    return scores.double().softmax(1), scores.argmax(1)
