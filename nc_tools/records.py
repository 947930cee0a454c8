"""The records that pass between loader, model, loss and measures.

A record carries all that a method may need, so that no loop ever asks which head or which loss it is running.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from nc_tools._support.precision import autocast_off


@dataclass(frozen=True)
class Batch:
    """One batch as it leaves the loader.

    Attributes:
        inputs: Normalized images (N, C, H, W), or any input whose first dimension is the batch.
        labels: Class indices (N,), int64.
        index: Stable position of each sample in the whole training set (N,), int64: state that belongs to a sample
            is keyed by it, and so survives shuffling, subsets and resuming.
        second_view: A second augmented view of the same samples, where the loader was asked for two.
        tags: Which classes are in each sample (N, K), bool, where it may have several.
        outliers: Normalized images of no class (M, C, H, W), where some are trained against.
        partner: The same inputs under the labels, index and tags of what was mixed into them; None in a batch of pure
            samples.
        share: How much of each mixed sample is the one that ``labels`` names, at least 1/2; the rest is the partner's.
    """

    inputs: Tensor
    labels: Tensor
    index: Tensor
    second_view: Tensor | None = None
    tags: Tensor | None = None
    outliers: Tensor | None = None
    partner: Batch | None = None
    share: float = 1.0


class Scoring(Protocol):
    """What a batch of outputs asks of the head that made it."""

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""

    num_classes: int
    bias: Tensor | None
    scale: Tensor | float

    def embed(self, features: Tensor) -> Tensor:
        """Project and normalize."""

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Score embedded features against all classes."""

    def own_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Score features against each sample's own class."""


@dataclass
class Outputs:
    """What a head makes of a batch of features, each part computed when it is first asked for.

    Dot regression and other losses that look at one class vector per sample ask for :meth:`own_scores` alone, so their
    step stays O(N D).

    Attributes:
        features: What the backbone gave (N, D).
        widened: The same in the head's arithmetic, at least float32.
        head: What computes the rest.
        second_view: The same for the batch's second view, where it has one.
        outliers: The same for the batch's outliers, where it has some.
    """

    features: Tensor
    widened: Tensor = field(repr=False)
    head: Scoring
    second_view: Outputs | None = None
    outliers: Outputs | None = None
    # Kept by hand: the lock in Python 3.11's cached_property breaks a compiled graph.
    _weight: Tensor | None = field(default=None, init=False, repr=False)
    _embedded: Tensor | None = field(default=None, init=False, repr=False)
    _logits: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.head.num_classes

    @property
    def bias(self) -> Tensor | None:
        """(K,) or None."""
        return self.head.bias

    @property
    def scale(self) -> Tensor | float:
        """What multiplies the product: a number or a tensor that broadcasts against (K,)."""
        return self.head.scale

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""
        if self._weight is None:
            self._weight = self.head.weight
        return self._weight

    @property
    def embedded(self) -> Tensor:
        """Features after the head's projection and normalization (N, D')."""
        if self._embedded is None:
            with autocast_off(self.features.device.type):
                self._embedded = self.head.embed(self.widened)
        return self._embedded

    @property
    def logits(self) -> Tensor:
        """Class scores (N, K), before any softmax."""
        if self._logits is None:
            embedded = self.embedded
            with autocast_off(self.features.device.type):
                self._logits = self.head.compute_logits(embedded)
        return self._logits

    @property
    def scored(self) -> bool:
        """Whether somebody has asked for the logits."""
        return self._logits is not None

    def own_scores(self, labels: Tensor) -> Tensor:
        """Return w_y . embedded for each sample's own class (N,)."""
        with autocast_off(self.features.device.type):
            return self.head.own_scores(self.widened, labels)


@dataclass(frozen=True)
class Collected:
    """A whole set after one pass through a model in eval mode, in the set's own order.

    Attributes:
        features: (N, D), before the head's projection and normalization.
        embedded: (N, D'), after them.
        logits: (N, K).
        labels: (N,), int64.
    """

    features: Tensor
    embedded: Tensor
    logits: Tensor
    labels: Tensor
