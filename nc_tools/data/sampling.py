"""Class sampling: balanced, square-root and progressively balanced (Kang et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools.seeds import stream


@dataclass(frozen=True)
class BalancedSampling:
    """Balanced sampling: all classes equally often, p_k = 1 / K (Kang et al. 2020, eq. 1 with q = 0).

    Used in the second stage of decoupled training. Do not combine it with a loss that corrects for class counts, such
    as logit adjustment: the imbalance would be corrected twice.
    """

    def shares(self, counts: Tensor, progress: float) -> Tensor:  # noqa: ARG002
        """Return the share of each class in an epoch (K,), float64; 0 for a class without samples."""
        return power_shares(counts, 0.0)


@dataclass(frozen=True)
class SquareRootSampling:
    """Square-root sampling: p_k = sqrt(n_k) / sum_j sqrt(n_j) (Kang et al. 2020, eq. 1, q = 1/2)."""

    def shares(self, counts: Tensor, progress: float) -> Tensor:  # noqa: ARG002
        """Return the share of each class in an epoch (K,), float64."""
        return power_shares(counts, 0.5)


@dataclass(frozen=True)
class ProgressiveSampling:
    """Progressively balanced sampling: p_k(t) = (1 - t) * n_k / n + t / K (Kang et al. 2020, eq. 2).

    t increases from 0 in the first epoch, with the shares of the data, to 1 in the last, with balanced shares.
    """

    def shares(self, counts: Tensor, progress: float) -> Tensor:
        """Return the share of each class in an epoch (K,), float64, for counts (K,) and t = ``progress`` in [0, 1]."""
        return (1 - progress) * power_shares(counts, 1.0) + progress * power_shares(counts, 0.0)


Sampling: TypeAlias = BalancedSampling | SquareRootSampling | ProgressiveSampling


def power_shares(counts: Tensor, power: float) -> Tensor:
    """Return the share of each class (K,), float64: n_k^q / sum_j n_j^q, and 0 for a class without samples.

    Args:
        counts: Samples of each class (K,).
        power: The exponent q.

    Example:
        >>> power_shares(torch.tensor([9, 1, 0]), 0.5).tolist()
        [0.75, 0.25, 0.0]
    """
    weights = torch.where(counts > 0, counts.double() ** power, 0.0)
    return weights / weights.sum()


def draw_positions(labels: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N samples with given shares of the classes.

    The number of draws from a class is N times its share, rounded up or down at random (systematic sampling). No sample
    of a class is repeated before all of them have been drawn. So the numbers of draws are as even as whole numbers
    allow. Independent draws would miss about a third of the samples of a class with as many draws as samples.

    Args:
        labels: (N,), int64, on the CPU.
        shares: (K,), which sum to one.
        generator: CPU generator.

    Returns:
        (N,) positions in ``labels``, int64, class by class.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> positions = draw_positions(labels, torch.tensor([0.5, 0.5]), torch.Generator().manual_seed(0))
        >>> labels[positions].tolist()
        [0, 0, 1, 1]
    """
    count = len(labels)
    shuffled = torch.randperm(count, generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels, minlength=len(shares))
    first = counts.cumsum(0) - counts
    edges = shares.double().cumsum(0) * count
    marks = torch.arange(count, dtype=torch.float64) + torch.rand(1, dtype=torch.float64, generator=generator)
    # The last edge may be rounded below the last mark; a class of share 0 must not be drawn then.
    classes = torch.searchsorted(edges, marks, right=True).clamp(max=int(shares.nonzero().max()))
    draws = torch.bincount(classes, minlength=len(shares))
    rank = torch.arange(count) - (draws.cumsum(0) - draws)[classes]
    return by_class[first[classes] + rank % counts[classes]]


class EpochSampler:
    """Draws the samples of each training epoch with given shares of the classes, from the stream ("sampling", epoch).

    An epoch has as many samples as the training subset, so that all arms make the same number of steps.

    Args:
        labels: Labels of the training subset (N,), int64, with noise if there is any.
        sampling: Shares of the classes.
        seed: The run's seed.
        epochs: Number of training epochs, for shares that change during training; or None.

    Raises:
        ValueError: If the shares change during training and its length is not given.
    """

    def __init__(self, labels: Tensor, sampling: Sampling, seed: int, epochs: int | None) -> None:
        if isinstance(sampling, ProgressiveSampling) and epochs is None:
            raise ValueError("ProgressiveSampling needs the number of training epochs, got epochs=None: pass epochs")
        self._labels = labels.cpu()
        self._sampling = sampling
        self._seed = seed
        self._last = 0 if epochs is None else epochs - 1

    def draw(self, epoch: int) -> Tensor:
        """Return the samples of an epoch as positions in the training subset (N,), class by class."""
        progress = min(epoch / self._last, 1.0) if self._last > 0 else 1.0
        shares = self._sampling.shares(torch.bincount(self._labels), progress)
        return draw_positions(self._labels, shares, stream(self._seed, "sampling", epoch))
