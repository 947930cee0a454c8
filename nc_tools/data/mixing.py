"""Mixed batches: mixup and CutMix, for any loss."""

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
    """What is drawn for one batch: the first image's share, and a point of the picture, (y, x) in [0, 1)."""

    share: float
    center: tuple[float, float]


@dataclass(frozen=True)
class Mixup:
    """Train on weighted means of two images: x = lam x_i + (1 - lam) x_j, lam from Beta(alpha, alpha).

    Smooths the decision between classes and calibrates. Source: Zhang et al. 2018, eq. 1 and algorithm 1, with one lam
    for each batch as in their code. Under :class:`~nc_tools.losses.DeferredReweightingLoss` it is the mixup-DRW of the
    long-tail literature.

    Attributes:
        alpha: Both parameters of the Beta distribution; 1 is uniform, small values hardly mix.
        until: Share of training after which batches are pure again, in (0, 1].

    Example:
        >>> Mixup().blend(torch.tensor([[4.0]]), torch.tensor([[8.0]]), MixingDraw(0.75, (0.0, 0.0)))
        (tensor([[5.]]), 0.75)
    """

    alpha: float = 1.0
    until: float = 1.0

    def __post_init__(self) -> None:
        _check(self)

    def blend(self, inputs: Tensor, others: Tensor, draw: MixingDraw) -> tuple[Tensor, float]:
        """Return the mixed inputs, and the share of the first ones in them."""
        return torch.lerp(others, inputs, draw.share), draw.share


@dataclass(frozen=True)
class CutMix:
    """Paste a box of another image: its area is 1 - lam of the picture, lam from Beta(alpha, alpha).

    Keeps the pictures natural where mixup makes them transparent. Source: Yun et al. 2019, eq. 1 and 2, with the same
    box for the whole batch as in their code: centered anywhere, cut off at the border, and lam then set to the share
    of the picture that was kept.

    Attributes:
        alpha: Both parameters of the Beta distribution; 1 is uniform.
        until: Share of training after which batches are pure again, in (0, 1].

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

    def blend(self, inputs: Tensor, others: Tensor, draw: MixingDraw) -> tuple[Tensor, float]:
        """Return the images with their boxes, and the share of the first ones in them.

        Raises:
            ValueError: If the inputs are not images.
        """
        if inputs.ndim != 4:
            raise ValueError(f"CutMix cuts images (N, C, H, W), got inputs of shape {tuple(inputs.shape)}: take Mixup")
        height, width = inputs.shape[2:]
        side = math.sqrt(1 - draw.share)
        top, bottom = _span(height, side, draw.center[0])
        left, right = _span(width, side, draw.center[1])
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)


BatchMixing: TypeAlias = Mixup | CutMix


class Batches(Protocol):
    """A loader whose batches depend on the epoch alone."""

    def __len__(self) -> int:
        """Return the steps in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step ``start`` on."""


class MixedBatches:
    """Training batches, each mixed with itself shifted by one place.

    Batches come shuffled, so a sample's neighbor is as random a partner as a drawn one, and each sample is once the
    first and once the second: class counts within the batch, and so the class weights of losses, are the same on both
    sides. Labels are never averaged: the batch carries a partner, which is the same inputs under the other labels, and
    :func:`~nc_tools.training.batch_terms` weighs the two losses. ``labels`` are those of the larger share, which is
    what accuracy in training is told against.

    Shares and boxes are drawn for an epoch at once on the CPU, from the stream ("mix", epoch): training can be resumed
    at any step, and the data's order and augmentation are the same with and without mixing. A run's class counts are
    those of its data and are not touched. Outliers stay as they are.

    Args:
        batches: Of pure samples, in one view.
        how: Mixup or CutMix.
        seed: The run's seed.
        epochs: Length of the training, of which ``how.until`` is a share.

    Example:
        >>> from nc_tools.data import DataConfig, load, make_loader
        >>> data = load(DataConfig())
        >>> kind = {"mean": data.mean, "std": data.std, "augment": None, "seed": 0}
        >>> loader = make_loader(data.train, torch.arange(64), 32, **kind)
        >>> batch = next(MixedBatches(loader, Mixup(), seed=0, epochs=1).epoch(0))
        >>> batch.share >= 0.5, batch.partner.inputs is batch.inputs
        (True, True)
    """

    def __init__(self, batches: Batches, how: BatchMixing, seed: int, epochs: int) -> None:
        self._batches = batches
        self._how = how
        self._seed = seed
        self._epochs = epochs

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on, bit-equal whatever was asked for before."""
        pure = self._batches.epoch(epoch, start)
        draws = draw_mixing(self._how.alpha, len(self), self._seed, epoch)
        mixed_steps = math.ceil(self._how.until * len(self) * self._epochs) - epoch * len(self)
        return (
            mix(batch, self._how, draws[step]) if step < mixed_steps else batch
            for step, batch in enumerate(pure, start=start)
        )


def draw_mixing(alpha: float, steps: int, seed: int, epoch: int) -> list[MixingDraw]:
    """Draw an epoch's shares and points from the stream ("mix", epoch).

    From numpy's legacy generator, because torch has no Beta distribution that draws from a given generator, and because
    its numbers are promised never to change.
    """
    bits = np.random.MT19937(np.random.SeedSequence(stream_seed(seed, "mix", epoch)))
    generator = np.random.RandomState(bits)
    shares = generator.beta(alpha, alpha, steps).tolist()
    points = generator.random_sample((steps, 2)).tolist()
    return [MixingDraw(share, (y, x)) for share, (y, x) in zip(shares, points, strict=True)]


def mix(batch: Batch, how: BatchMixing, draw: MixingDraw) -> Batch:
    """Mix a batch with itself shifted by one place.

    Args:
        batch: Of one view.
        how: Mixup or CutMix.
        draw: Share and point.

    Returns:
        The mixed inputs under the labels of the larger share, with the other ones as its partner.

    Raises:
        ValueError: If the batch has two views.
    """
    if batch.second_view is not None:
        raise ValueError("a batch of two views cannot be mixed, because a view must show one image: use views=1")
    rolled = replace(
        batch,
        inputs=batch.inputs.roll(1, 0),
        labels=batch.labels.roll(1, 0),
        index=batch.index.roll(1, 0),
        tags=None if batch.tags is None else batch.tags.roll(1, 0),
    )
    inputs, share = how.blend(batch.inputs, rolled.inputs, draw)
    most, rest = (batch, rolled) if share >= 0.5 else (rolled, batch)
    share = max(share, 1 - share)
    partner = replace(rest, inputs=inputs) if share < 1 else None
    return replace(most, inputs=inputs, partner=partner, share=share)


def _span(length: int, side: float, center: float) -> tuple[int, int]:
    half, middle = int(length * side) // 2, int(length * center)
    return max(middle - half, 0), min(middle + half, length)


def _check(how: BatchMixing) -> None:
    name = type(how).__name__
    if not 0 < how.alpha < math.inf:
        raise ValueError(f"{name} needs a positive finite alpha, got {how.alpha}: 1 is usual, and None is no mixing")
    if not 0 < how.until <= 1:
        raise ValueError(f"{name}'s until is a share of training in (0, 1], got {how.until}")
