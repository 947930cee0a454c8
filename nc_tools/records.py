"""The records that pass between loader, model, loss and measures.

A record carries all that a method may need, so that no loop ever asks which head or which loss it is running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch as it leaves the loader.

    Attributes:
        inputs: Normalised images (N, C, H, W), or any input whose first dimension is the batch.
        labels: Class indices (N,), int64.
        index: Stable position of each sample in the whole training set (N,), int64: state that belongs to a sample
            is keyed by it, and so survives shuffling, subsets and resuming.
        second: A second augmented view of the same samples, where the loader was asked for two.
    """

    inputs: Tensor
    labels: Tensor
    index: Tensor
    second: Tensor | None = None


@dataclass
class Outputs:
    """What a head makes of a batch of features; logits are computed only when they are asked for.

    Dot regression and other losses that look at one class vector per sample never ask, so their step stays O(N D).

    Attributes:
        features: What the backbone gave (N, D).
        embedded: The same after the head's projection and normalisation (N, D').
        weight: Class vectors (K, D').
        bias: (K,) or None.
        scale: What multiplies the product: a number or a tensor that broadcasts against (K,).
    """

    features: Tensor
    embedded: Tensor
    weight: Tensor
    bias: Tensor | None
    scale: Tensor | float
    compute_logits: Callable[[Tensor], Tensor] = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """Class scores (N, K), before any softmax."""
        return self.compute_logits(self.embedded)


@dataclass(frozen=True)
class Collected:
    """A whole set after one pass through a model in eval mode, in the set's own order.

    Attributes:
        features: (N, D), before the head's projection and normalisation.
        embedded: (N, D'), after them.
        logits: (N, K).
        labels: (N,), int64.
    """

    features: Tensor
    embedded: Tensor
    logits: Tensor
    labels: Tensor
