"""The dataclasses that loader, model, loss and metrics exchange: a batch, and what a head computed from it.

Every loss and every head takes the same records, so that the training loop does not depend on which loss or head it
runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from nc_tools._support.precision import autocast_off


@dataclass(frozen=True)
class Batch:
    """One batch of training or evaluation data.

    Attributes:
        inputs: Normalized images (N, C, H, W), or any input whose first dimension is the batch.
        labels: Class indices (N,). A sample with the label -100 does not count in a loss.
        index: Position of each sample in the full training set (N,), int64. A loss that keeps state per sample uses it
            as the key: it does not change with shuffling, subsets or resuming.
        second_view: A second augmented view of the same samples, if the loader makes two.
        tags: The classes in each sample (N, K), bool, if a sample may have several.
        outliers: Normalized images of no class (M, C, H, W), if the loss needs some.
        partner: For a mixed batch: the same inputs with the labels, index and tags of the samples that were mixed in.
            None if the batch is not mixed.
        share: For a mixed batch: the share of each input that belongs to ``labels``, at least 1/2. The rest belongs to
            the partner's labels. A tensor () in a step that is recorded as a CUDA graph.
        kept: Which samples count in a loss (N,), bool; None for all. Before it computes, a loss sets this mask and
            replaces the labels -100 by valid ones.

    Example:
        >>> import torch
        >>> images, labels = torch.zeros(2, 3, 8, 8), torch.tensor([0, 2])
        >>> Batch(images, labels, index=torch.arange(2)).labels
        tensor([0, 2])
    """

    inputs: Tensor
    labels: Tensor
    index: Tensor
    second_view: Tensor | None = None
    tags: Tensor | None = None
    outliers: Tensor | None = None
    partner: Batch | None = None
    share: float | Tensor = 1.0
    kept: Tensor | None = None


class HeadLike(Protocol):
    """What :class:`Outputs` needs of a head. Every :class:`~nc_tools.heads.head.Head` provides it."""

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""

    def class_vectors(self) -> Tensor:
        """Return the class vectors (K, D') to compute with."""

    num_classes: int
    bias: Tensor | None
    scale: Tensor | float

    def embed(self, features: Tensor) -> Tensor:
        """Project and normalize features (N, D), which gives (N, D')."""

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits (N, K) of embedded features (N, D')."""

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the dot product of each sample's embedded features and the class vector of its label (N,)."""


@dataclass
class Outputs:
    """What a head computes from a batch of features for the losses. Each part is computed when it is first read.

    The training loop passes it to the loss; in your own loop ``watch(model).outputs`` returns it. A loss that needs
    only the class vector of each sample's label, such as dot regression, calls :meth:`label_scores`. No logits are
    computed then, and the step stays O(N D).

    Attributes:
        features: The backbone's output (N, D).
        upcast_features: The features in the dtype in which the head computes, at least float32.
        head: The head.
        second_view: The outputs for the batch's second view, if it has one.
        outliers: The outputs for the batch's outliers, if it has some.
        computed_logits: The logits if they have been computed already, else None.

    Example:
        >>> import torch
        >>> from nc_tools.heads import LinearHead
        >>> outputs = LinearHead(4, 3).outputs(torch.ones(2, 4))
        >>> outputs.features.shape, outputs.logits.shape, outputs.weight.shape
        (torch.Size([2, 4]), torch.Size([2, 3]), torch.Size([3, 4]))
    """

    features: Tensor
    upcast_features: Tensor = field(repr=False)
    head: HeadLike
    second_view: Outputs | None = None
    outliers: Outputs | None = None
    computed_logits: Tensor | None = field(default=None, init=False, repr=False)
    # Not functools.cached_property: its lock in Python 3.11 breaks a compiled graph.
    _weight: Tensor | None = field(default=None, init=False, repr=False)
    _embedded: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.head.num_classes

    @property
    def bias(self) -> Tensor | None:
        """The bias of each class (K,), or None."""
        return self.head.bias

    @property
    def scale(self) -> Tensor | float:
        """What each product of features and class vectors is multiplied by: a number, or a tensor (K,)."""
        return self.head.scale

    @property
    def weight(self) -> Tensor:
        """Class vectors (K, D')."""
        if self._weight is None:
            self._weight = self.head.class_vectors()
        return self._weight

    @property
    def embedded(self) -> Tensor:
        """Features after the head's projection and normalization (N, D')."""
        if self._embedded is None:
            with autocast_off(self.features.device.type):
                self._embedded = self.head.embed(self.upcast_features)
        return self._embedded

    @property
    def logits(self) -> Tensor:
        """Class scores (N, K), before softmax."""
        if self.computed_logits is None:
            with autocast_off(self.features.device.type):
                if self._embedded is None:
                    self._embedded = self.head.embed(self.upcast_features)
                self.computed_logits = self.head.compute_logits(self._embedded)
        return self.computed_logits

    def label_scores(self, labels: Tensor) -> Tensor:
        """Return the dot product of each sample's embedded features and its label's class vector (N,), unscaled."""
        with autocast_off(self.features.device.type):
            return self.head.label_scores(self.upcast_features, labels)


@dataclass(frozen=True)
class Collected:
    """Features, logits and labels of a data set, in its order, from one pass through a model in eval mode.

    Attributes:
        features: The backbone's output (N, D).
        embedded: Features after the head's projection and normalization (N, D').
        logits: Class scores (N, K).
        labels: Class indices (N,), int64.
    """

    features: Tensor
    embedded: Tensor
    logits: Tensor
    labels: Tensor
