"""Synthetic label noise: frozen dataclasses that draw noisy labels for a training set.

Papers define the noise rate in different ways. Here ``rate`` is always the probability that the label of a sample of an
affected class *changes*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.image_set import Images, with_labels
from nc_tools.data.instance_noise import InstanceNoise
from nc_tools.data.noise_rate import check_rate
from nc_tools.metrics.label_noise.transition import checked_transition
from nc_tools.seeds import stream

CIFAR10_CONFUSIONS = (
    ("truck", "automobile"),
    ("bird", "airplane"),
    ("deer", "horse"),
    ("cat", "dog"),
    ("dog", "cat"),
)
"""The confused classes of CIFAR-10, as pairs (from, to). Source: Patrini et al. 2017, section 5."""

# Rows of cumulative probabilities computed at once.
_ROWS = 8192


@dataclass(frozen=True)
class SymmetricNoise:
    """Symmetric noise: a label changes to any other class with equal probability, T_ij = rate / (K - 1).

    Some papers draw the new label from all K classes, the true one included. Their rate r is the rate r (K - 1) / K
    here.

    Attributes:
        rate: Probability that a label changes, in [0, 1).

    Raises:
        ValueError: If the rate is out of range.

    Example:
        >>> SymmetricNoise(0.2).transition(["a", "b", "c"])[0].tolist()
        [0.8, 0.1, 0.1]
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return the transition matrix T (K, K), float64.

        Raises:
            ValueError: If there are fewer than two classes.
        """
        number = len(classes)
        if number < 2:
            raise ValueError(f"symmetric noise needs at least two classes, got {number}: set noise=None")
        matrix = torch.full((number, number), self.rate / (number - 1), dtype=torch.float64)
        return matrix.fill_diagonal_(1 - self.rate)

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Draw a noisy label for each sample (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


@dataclass(frozen=True)
class PairNoise:
    """Pair noise: a label changes to the next class, that of the last class to the first (Han et al. 2018).

    Attributes:
        rate: Probability that a label changes, in [0, 1); above .5 the wrong class is the more frequent one.

    Raises:
        ValueError: If the rate is out of range.

    Example:
        >>> PairNoise(0.25).transition(["a", "b", "c"])[2].tolist()
        [0.25, 0.0, 0.75]
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return the transition matrix T (K, K), float64."""
        eye = torch.eye(len(classes), dtype=torch.float64)
        return (1 - self.rate) * eye + self.rate * eye.roll(1, dims=1)

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Draw a noisy label for each sample (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


@dataclass(frozen=True)
class AsymmetricNoise:
    """Asymmetric noise: labels of some classes change to a similar class; other classes keep their labels.

    Attributes:
        rate: Probability that a label of a class in ``to`` changes, in [0, 1).
        to: Pairs (true class, wrong class); those of CIFAR-10 by default (Patrini et al. 2017).

    Raises:
        ValueError: If the rate is out of range, there are no pairs or not pairs of different class names, or a true
            class is in two pairs.

    Example:
        >>> AsymmetricNoise(0.4, (("owl", "crow"),)).transition(["crow", "owl"]).tolist()
        [[1.0, 0.0], [0.4, 0.6]]
    """

    rate: float
    to: tuple[tuple[str, str], ...] = CIFAR10_CONFUSIONS

    def __post_init__(self) -> None:
        check_rate(self.rate)
        kinds = [tuple(map(type, pair)) for pair in self.to if isinstance(pair, tuple | list)]
        pairs = len(kinds) == len(self.to) and all(kind == (str, str) for kind in kinds)
        if not pairs or not self.to or any(pair[0] == pair[1] for pair in self.to):
            raise ValueError(
                f"AsymmetricNoise(to=...) must hold at least one pair (class, another class), both as text, got "
                f"{self.to}"
            )
        sources = [pair[0] for pair in self.to]
        if len(set(sources)) != len(sources):
            raise ValueError(
                f"AsymmetricNoise(to=...) must have each true class once, got {', '.join(sources)}: use MatrixNoise "
                f"for several wrong classes"
            )

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return the transition matrix T (K, K), float64.

        Raises:
            ValueError: If ``to`` names a class that the data do not have.
        """
        matrix = torch.eye(len(classes), dtype=torch.float64)
        for source, target in self.to:
            i, j = _index(source, classes), _index(target, classes)
            matrix[i, i], matrix[i, j] = 1 - self.rate, self.rate
        return matrix

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Draw a noisy label for each sample (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


@dataclass(frozen=True)
class MatrixNoise:
    """Class-dependent noise with any transition matrix.

    Attributes:
        matrix: K rows of K probabilities: row i, column j is P(given label j | true class i).

    Raises:
        ValueError: If it is not a square matrix of probabilities whose rows sum to 1.

    Example:
        >>> MatrixNoise(((0.9, 0.1), (0.5, 0.4)))
        Traceback (most recent call last):
            ...
        ValueError: each row of a transition matrix must sum to 1, but row 1 sums to 0.9: rows are true classes \
(transpose the matrix if its columns are)
    """

    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        checked_transition(self.matrix)

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return the transition matrix T (K, K), float64.

        Raises:
            ValueError: If the data have another number of classes.
        """
        return checked_transition(self.matrix, len(classes))

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Draw a noisy label for each sample (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


Noise: TypeAlias = SymmetricNoise | PairNoise | AsymmetricNoise | MatrixNoise | InstanceNoise
"""Label noise that can be drawn onto training labels."""


def with_noise(images: Images, noise: Noise, seed: int) -> Images:
    """Return the same images with noisy labels, and the true ones as ``clean_labels``.

    Labels are drawn for the whole set from the seed's stream "noise", sample by sample. So the label of a sample does
    not depend on which samples a run trains on, and all arms of a seed get the same labels.

    Args:
        images: The training set with its true labels.
        noise: The noise to draw.
        seed: The run's seed.

    Raises:
        ValueError: If the noise does not fit the classes.

    Example:
        >>> from nc_tools.data import DataConfig, load_data
        >>> noisy = with_noise(load_data(DataConfig()).train, SymmetricNoise(0.4), seed=0)
        >>> 0.3 < float((noisy.labels != noisy.clean_labels).double().mean()) < 0.5
        True
    """
    return with_labels(images, noise.draw(images, stream(seed, "noise")))


def relabel(labels: Tensor, transition: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a new label for each sample from the row of its true class.

    Args:
        labels: (N,), the true classes.
        transition: (K, K), float64, with rows that sum to one.
        generator: CPU generator; one number is drawn for each sample.

    Returns:
        (N,), int64.

    Example:
        >>> relabel(torch.tensor([0, 1]), torch.eye(2).double(), torch.Generator()).tolist()
        [0, 1]
    """
    uniform = torch.rand(len(labels), dtype=torch.float64, generator=generator)
    cumulative = transition.cumsum(1)
    # Scaled to end at exactly one: else a rounded sum below one could give an index of K, which is no class.
    cumulative = cumulative / cumulative[:, -1:]
    parts = zip(torch.split(labels, _ROWS), torch.split(uniform, _ROWS), strict=True)
    return torch.cat([(u[:, None] >= cumulative[y]).sum(1) for y, u in parts])


def _index(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise ValueError(
            f"AsymmetricNoise names the class {name!r}, which the data do not have; {did_you_mean(name, classes)}"
        )
    return list(classes).index(name)
