"""Kinds of synthetic label noise: frozen records, each of which can relabel a training set.

The literature means different things by one rate; here ``rate`` is always the probability that the label of a
sample of an affected class *changes*.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from nc_tools.data.image_set import Images, with_labels
from nc_tools.data.instance_noise import InstanceNoise
from nc_tools.data.noise_rate import check_rate
from nc_tools.metrics.label_noise.transition import checked_transition
from nc_tools.seeds import stream

# Cat and dog change places, truck becomes automobile, bird airplane, deer horse: Patrini et al. 2017, section 5.
CIFAR10_CONFUSIONS = (
    ("truck", "automobile"),
    ("bird", "airplane"),
    ("deer", "horse"),
    ("cat", "dog"),
    ("dog", "cat"),
)
# Rows of cumulative probabilities made at once.
_ROWS = 8192


@dataclass(frozen=True)
class SymmetricNoise:
    """Any other class, all alike: T_ii = 1 - rate, T_ij = rate / (K - 1).

    Some papers draw the new label from all K classes, the true one among them; what they call r is r (K - 1) / K here.

    Attributes:
        rate: Probability that a label changes, in [0, 1).

    Example:
        >>> SymmetricNoise(0.2).transition(["a", "b", "c"])[0].tolist()
        [0.8, 0.1, 0.1]
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return T (K, K), float64."""
        number = len(classes)
        if number < 2:
            raise ValueError(f"symmetric noise needs another class to mistake one for, got {number}: noise=None")
        matrix = torch.full((number, number), self.rate / (number - 1), dtype=torch.float64)
        return matrix.fill_diagonal_(1 - self.rate)

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Return new labels (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


@dataclass(frozen=True)
class PairNoise:
    """The next class, cyclically: T_ii = 1 - rate, T_i,(i+1 mod K) = rate (Han et al. 2018).

    Attributes:
        rate: Probability that a label changes, in [0, 1); from .5 on the wrong class wins.

    Example:
        >>> PairNoise(0.25).transition(["a", "b", "c"])[2].tolist()
        [0.25, 0.0, 0.75]
    """

    rate: float

    def __post_init__(self) -> None:
        check_rate(self.rate)

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return T (K, K), float64."""
        eye = torch.eye(len(classes), dtype=torch.float64)
        return (1 - self.rate) * eye + self.rate * eye.roll(1, dims=1)

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Return new labels (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


@dataclass(frozen=True)
class AsymmetricNoise:
    """Named confusions between similar classes; classes that the map does not name keep their labels.

    Attributes:
        rate: Probability that a label of a class in the map changes, in [0, 1).
        to: Pairs (true class, the class it is taken for); those of CIFAR-10 by default (Patrini et al. 2017).

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
            raise ValueError(f"a map of label noise holds pairs (class, another class), at least one, got {self.to}")
        named = [pair[0] for pair in self.to]
        if len(set(named)) != len(named):
            raise ValueError(f"a map of label noise names each class once on the left, got {named}: use MatrixNoise")

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return T (K, K), float64.

        Raises:
            ValueError: If the map names a class that is not there.
        """
        matrix = torch.eye(len(classes), dtype=torch.float64)
        for source, target in self.to:
            i, j = _place(source, classes), _place(target, classes)
            matrix[i, i], matrix[i, j] = 1 - self.rate, self.rate
        return matrix

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Return new labels (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


@dataclass(frozen=True)
class MatrixNoise:
    """Any noise that depends on the class alone, by its transition matrix.

    Attributes:
        matrix: K rows of K probabilities: row i, column j is P(given label j | true class i).

    Example:
        >>> MatrixNoise(((0.9, 0.1), (0.5, 0.4)))
        Traceback (most recent call last):
            ...
        ValueError: each row of a transition matrix must sum to 1, and row 1 sums to 0.9: rows are true classes
    """

    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        checked_transition(self.matrix)

    def transition(self, classes: Sequence[str]) -> Tensor:
        """Return T (K, K), float64.

        Raises:
            ValueError: If the data have another number of classes.
        """
        return checked_transition(self.matrix, len(classes))

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Return new labels (N,)."""
        return relabel(images.labels, self.transition(images.classes), generator)


Noise: TypeAlias = SymmetricNoise | PairNoise | AsymmetricNoise | MatrixNoise | InstanceNoise


def with_noise(images: Images, noise: Noise, seed: int) -> Images:
    """Return the same images under noisy labels, with the true ones kept as ``clean_labels``.

    Drawn for the whole set from the seed's stream "noise", one sample after the other: which samples a run trains on
    does not change anybody's label, and all arms of a seed get the same labels.

    Raises:
        ValueError: If the noise does not fit the classes.

    Example:
        >>> from nc_tools.data import DataConfig, load
        >>> noisy = with_noise(load(DataConfig()).train, SymmetricNoise(0.4), seed=0)
        >>> 0.3 < float((noisy.labels != noisy.clean_labels).double().mean()) < 0.5
        True
    """
    return with_labels(images, noise.draw(images, stream(seed, "noise")))


def relabel(labels: Tensor, transition: Tensor, generator: torch.Generator) -> Tensor:
    """Draw each given label from the row of the true one.

    Args:
        labels: (N,), the true classes.
        transition: (K, K), float64, rows summing to one.
        generator: CPU generator; one number is drawn for each sample.

    Returns:
        (N,), int64.

    Example:
        >>> relabel(torch.tensor([0, 1]), torch.eye(2).double(), torch.Generator()).tolist()
        [0, 1]
    """
    drawn = torch.rand(len(labels), dtype=torch.float64, generator=generator)
    cumulative = transition.cumsum(1)
    # Up to exactly one: else rounding could leave room for the last class where its probability is zero.
    cumulative = cumulative / cumulative[:, -1:]
    parts = zip(torch.split(labels, _ROWS), torch.split(drawn, _ROWS), strict=True)
    return torch.cat([(u[:, None] >= cumulative[y]).sum(1) for y, u in parts])


def _place(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        near = difflib.get_close_matches(name, classes, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f": the classes are {', '.join(classes[:10])}"
        raise ValueError(f"a map of label noise must name classes of the data, and {name!r} is none of them{hint}")
    return list(classes).index(name)
