"""Mixup and CutMix, for any loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nc_tools.records import Batch
from nc_tools.seeds import stream_seed


class MixingDraw(NamedTuple):
    """The random numbers that mix one batch: the share of the first image, and the box center (y, x) in [0, 1)."""

    share: float
    center: tuple[float, float]


@dataclass(frozen=True)
class Mixup:
    """Mixup: train on weighted means of two images, x = lam * x_i + (1 - lam) * x_j, lam from Beta(alpha, alpha).

    Smooths the decision boundaries and improves calibration. Source: Zhang et al. 2018, eq. 1 and algorithm 1, with one
    lam for each batch as in their code. With :class:`~nc_tools.losses.DeferredReweightingLoss` it is the mixup-DRW of
    the long-tail literature.

    Attributes:
        alpha: Both parameters of the Beta distribution; 1 is uniform, small values hardly mix.
        until: Share of training after which batches are no longer mixed, in (0, 1].

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> Mixup().blend(torch.tensor([[4.0]]), torch.tensor([[8.0]]), MixingDraw(0.75, (0.0, 0.0)))
        (tensor([[5.]]), 0.75)
    """

    alpha: float = 1.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _check(self)

    def blend(self, inputs: Tensor, partners: Tensor, draw: MixingDraw) -> tuple[Tensor, float]:
        """Return the mixed inputs (N, ...), and the share of ``inputs`` in them."""
        return torch.lerp(partners, inputs, draw.share), draw.share


@dataclass(frozen=True)
class CutMix:
    """CutMix: paste a box of another image, whose area is 1 - lam of the image, lam from Beta(alpha, alpha).

    Every pixel comes from one image, while mixup overlays two. Source: Yun et al. 2019, eq. 1 and 2. As in their code,
    the whole batch has the same box. It has a random center and is clipped at the border; lam is then set to the share
    of the image that was kept.

    Attributes:
        alpha: Both parameters of the Beta distribution; 1 is uniform.
        until: Share of training after which batches are no longer mixed, in (0, 1].

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> white, black = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> mixed, share = CutMix().blend(white, black, MixingDraw(0.0, (0.5, 0.0)))
        >>> mixed.flatten().tolist(), share
        ([0.0, 1.0, 0.0, 1.0], 0.5)
    """

    alpha: float = 1.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _check(self)

    def blend(self, inputs: Tensor, partners: Tensor, draw: MixingDraw) -> tuple[Tensor, float]:
        """Return ``inputs`` (N, C, H, W) with a box from ``partners``, and the share of the area that was kept.

        Raises:
            ValueError: If the inputs are not images.
        """
        if inputs.ndim != 4:
            raise ValueError(f"CutMix needs images (N, C, H, W), got inputs of shape {tuple(inputs.shape)}: use Mixup")
        height, width = inputs.shape[2:]
        side = math.sqrt(1 - draw.share)
        top, bottom = _span(height, side, draw.center[0])
        left, right = _span(width, side, draw.center[1])
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)


BatchMixing: TypeAlias = Mixup | CutMix


class Batches(Protocol):
    """A loader of training batches that depend on the epoch number alone."""

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step ``start`` on."""


class MixedBatches:
    """Training batches, each mixed by Mixup or CutMix with itself shifted by one sample.

    Batches are shuffled, so that the neighbor of a sample is a random partner. Each sample is the first image of one
    pair and the second of another. So the first images and the second ones have the same class counts, and losses give
    them the same class weights. Labels are never averaged. The batch has a partner, which has the same inputs and the
    other labels, and :func:`~nc_tools.training.batch_terms` computes the weighted mean of the two losses. ``labels``
    are those of the larger share; the training accuracy is computed with them.

    Shares and boxes of an epoch are drawn together on the CPU, from the stream ("mix", epoch). So training can be
    resumed at any step, and order and augmentation are the same with and without mixing. The class counts of a run stay
    those of its data. Outliers are not mixed.

    Args:
        batches: Batches that are not mixed, with one view.
        mixing: Mixup or CutMix.
        seed: The run's seed.
        epochs: Number of training epochs, of which ``mixing.until`` is a share.

    Example:
        >>> from nc_tools.data import BatchOptions, DataConfig, load_data, make_loader
        >>> data = load_data(DataConfig())
        >>> options = BatchOptions(batch_size=32, mean=data.mean, std=data.std)
        >>> loader = make_loader(data.train, torch.arange(64), options)
        >>> batch = next(MixedBatches(loader, Mixup(), seed=0, epochs=1).epoch(0))
        >>> batch.share >= 0.5, batch.partner.inputs is batch.inputs
        (True, True)
    """

    def __init__(self, batches: Batches, mixing: BatchMixing, seed: int, epochs: int) -> None:
        self._batches = batches
        self._mixing = mixing
        self._seed = seed
        self._epochs = epochs

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on, bit-equal whatever was requested before.

        Raises:
            ValueError: If a batch has two views, or CutMix gets inputs that are not images.
        """
        batches = self._batches.epoch(epoch, start)
        draws = draw_mixing(self._mixing.alpha, len(self), self._seed, epoch)
        mixed_steps = math.ceil(self._mixing.until * len(self) * self._epochs) - epoch * len(self)
        return (
            mix(batch, self._mixing, draws[step]) if step < mixed_steps else batch
            for step, batch in enumerate(batches, start=start)
        )


def draw_mixing(alpha: float, steps: int, seed: int, epoch: int) -> list[MixingDraw]:
    """Draw the random numbers that mix the batches of an epoch, from the stream ("mix", epoch).

    numpy's legacy generator is used because torch's Beta distribution cannot draw from a given generator, and because
    numpy guarantees that its numbers never change.

    Args:
        alpha: Both parameters of the Beta distribution of the shares.
        steps: Number of batches.
        seed: The run's seed.
        epoch: Number of the epoch, from 0.
    """
    bits = np.random.MT19937(np.random.SeedSequence(stream_seed(seed, "mix", epoch)))
    generator = np.random.RandomState(bits)
    shares = generator.beta(alpha, alpha, steps).tolist()
    points = generator.random_sample((steps, 2)).tolist()
    return [MixingDraw(share, (y, x)) for share, (y, x) in zip(shares, points, strict=True)]


def mix(batch: Batch, mixing: BatchMixing, draw: MixingDraw) -> Batch:
    """Mix a batch by Mixup or CutMix with itself shifted by one sample.

    Args:
        batch: A batch with one view.
        mixing: Mixup or CutMix.
        draw: The random numbers.

    Returns:
        The mixed inputs with the labels of the larger share. Its partner has the other labels; it is None if the
        larger share is 1.

    Raises:
        ValueError: If the batch has two views, or CutMix gets inputs that are not images.
    """
    if batch.second_view is not None:
        raise ValueError(
            "a batch with two views cannot be mixed, because each view must show one image: build the loader "
            "with views=1"
        )
    rolled = replace(
        batch,
        inputs=batch.inputs.roll(1, 0),
        labels=batch.labels.roll(1, 0),
        index=batch.index.roll(1, 0),
        tags=None if batch.tags is None else batch.tags.roll(1, 0),
    )
    inputs, share = mixing.blend(batch.inputs, rolled.inputs, draw)
    larger, smaller = (batch, rolled) if share >= 0.5 else (rolled, batch)
    share = max(share, 1 - share)
    partner = replace(smaller, inputs=inputs) if share < 1 else None
    return replace(larger, inputs=inputs, partner=partner, share=share)


def _span(length: int, side: float, center: float) -> tuple[int, int]:
    half, middle = int(length * side) // 2, int(length * center)
    return max(middle - half, 0), min(middle + half, length)


def _check(mixing: BatchMixing) -> None:
    name = type(mixing).__name__
    if not 0 < mixing.alpha < math.inf:
        raise ValueError(
            f"alpha of {name} must be positive and finite, got {mixing.alpha}: 1 is usual"
            " (mixing=None switches mixing off)"
        )
    if not 0 < mixing.until <= 1:
        raise ValueError(f"until of {name} is a share of training and must lie in (0, 1], got {mixing.until}")
