"""How often each class is met in an epoch: balanced, square-root and progressively balanced sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools.seeds import stream


@dataclass(frozen=True)
class BalancedSampling:
    """All classes equally often, p_k = 1 / K (Kang et al. 2020, eq. 1 with q = 0).

    What the second stage of decoupled training draws by. The network then meets balanced classes: a loss that corrects
    for class counts, such as logit adjustment, would correct a second time.
    """

    def shares(self, counts: Tensor, progress: float) -> Tensor:  # noqa: ARG002
        """Return the share of each class in an epoch (K,), float64; 0 for a class without samples."""
        return power_shares(counts, 0.0)


@dataclass(frozen=True)
class SquareRootSampling:
    """Classes by the root of their counts, p_k = sqrt(n_k) / sum_j sqrt(n_j) (Kang et al. 2020, eq. 1, q = 1/2)."""

    def shares(self, counts: Tensor, progress: float) -> Tensor:  # noqa: ARG002
        """Return the share of each class in an epoch (K,), float64."""
        return power_shares(counts, 0.5)


@dataclass(frozen=True)
class ProgressiveSampling:
    """From the data's own shares to balanced ones: p_k(t) = (1 - t) n_k / n + t / K (Kang et al. 2020, eq. 2).

    t goes from 0 in the first epoch to 1 in the last.
    """

    def shares(self, counts: Tensor, progress: float) -> Tensor:
        """Return the share of each class in an epoch (K,), float64."""
        return (1 - progress) * power_shares(counts, 1.0) + progress * power_shares(counts, 0.0)


Sampling: TypeAlias = BalancedSampling | SquareRootSampling | ProgressiveSampling


def power_shares(counts: Tensor, power: float) -> Tensor:
    """Return n_k^q / sum_j n_j^q over the classes that have samples (K,), float64.

    Example:
        >>> power_shares(torch.tensor([9, 1, 0]), 0.5).tolist()
        [0.75, 0.25, 0.0]
    """
    weights = torch.where(counts > 0, counts.double() ** power, 0.0)
    return weights / weights.sum()


def draw_places(labels: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many samples as there are, the classes by their shares.

    A class's number is its share of the epoch rounded up or down at random (systematic sampling), and its samples
    are dealt like cards: none comes again before each has come. So an epoch is as even as whole numbers allow, where
    independent draws would leave out a third of a class that is due as often as it has samples.

    Args:
        labels: (N,), int64, on the CPU.
        shares: (K,), summing to one.
        generator: CPU generator.

    Returns:
        (N,) places in ``labels``, int64, class by class.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> places = draw_places(labels, torch.tensor([0.5, 0.5]), torch.Generator().manual_seed(0))
        >>> labels[places].tolist()
        [0, 0, 1, 1]
    """
    count = len(labels)
    shuffled = torch.randperm(count, generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels, minlength=len(shares))
    first = counts.cumsum(0) - counts
    edges = shares.double().cumsum(0) * count
    marks = torch.arange(count, dtype=torch.float64) + torch.rand(1, dtype=torch.float64, generator=generator)
    # The last edge may be rounded below the last mark, and a class of share 0 must not be drawn for it.
    classes = torch.searchsorted(edges, marks, right=True).clamp(max=int(shares.nonzero().max()))
    drawn = torch.bincount(classes, minlength=len(shares))
    rank = torch.arange(count) - (drawn.cumsum(0) - drawn)[classes]
    return by_class[first[classes] + rank % counts[classes]]


class EpochSampler:
    """The samples of each epoch, from the stream ("sampling", epoch).

    An epoch has as many samples as the training subset, whatever the sampling: arms make the same number of steps.

    Args:
        labels: Of the training subset (N,), int64: those that training sees.
        how: Shares of the classes.
        seed: The run's seed.
        epochs: Length of the training, for shares that change along it.

    Raises:
        ValueError: If the shares change along training and its length is not given.
    """

    def __init__(self, labels: Tensor, how: Sampling, seed: int, epochs: int | None) -> None:
        if isinstance(how, ProgressiveSampling) and epochs is None:
            raise ValueError("ProgressiveSampling goes from the first epoch to the last: pass epochs to the loader")
        self._labels = labels.cpu()
        self._how = how
        self._seed = seed
        self._last = 0 if epochs is None else epochs - 1

    def draw(self, epoch: int) -> Tensor:
        """Return the places in the training subset that an epoch consists of (N,), not yet in order."""
        progress = min(epoch / self._last, 1.0) if self._last > 0 else 1.0
        shares = self._how.shares(torch.bincount(self._labels), progress)
        return draw_places(self._labels, shares, stream(self._seed, "sampling", epoch))
