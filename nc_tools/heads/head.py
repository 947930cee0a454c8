"""What every classifier head promises."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from nc_tools._support.precision import autocast_off
from nc_tools.records import Outputs


class Head(nn.Module, ABC):
    """The last layer of a classifier: features (N, D) in, logits (N, K) out.

    An affine head promises ``logits = scale * embed(features) @ weight.T + bias``; a subclass for which that does not
    hold sets ``affine = False`` and overrides :meth:`compute_logits`. Normalization belongs to the head, so that the
    same loop serves every head. All arithmetic is at least float32, inside autocast too: on unit features the margin
    between classes is of the order of bfloat16's rounding.

    A subclass provides ``weight`` (K, D'), a Parameter or a property over its frame, and may override :meth:`embed`.

    Args:
        feature_dim: D, width of the backbone's features.
        num_classes: K, at least 2.

    Raises:
        ValueError: If K < 2 or D < 1.
    """

    affine: ClassVar[bool] = True
    bias: Tensor | None
    scale: Tensor | float

    if TYPE_CHECKING:

        @property
        def weight(self) -> Tensor:
            """Class vectors (K, D')."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 classes, got {num_classes}")
        if feature_dim < 1:
            raise ValueError(f"{type(self).__name__} needs feature_dim >= 1, got {feature_dim}")
        self.feature_dim = feature_dim
        self.num_classes = num_classes

    def embed(self, features: Tensor) -> Tensor:
        """Project and normalize: (N, D) to (N, D'), the space of the class vectors."""
        return features

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Score embedded features (N, D') against the classes: (N, K)."""
        logits = self.scale * nn.functional.linear(embedded, self.weight.to(embedded.dtype))
        return logits if self.bias is None else logits + self.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, K)."""
        with autocast_off(features.device.type):
            return self.compute_logits(self.embed(self._checked(features)))

    def outputs(self, features: Tensor) -> Outputs:
        """Return the record that losses read; what it holds is computed only if asked for."""
        return Outputs(features, self._checked(features), self)

    def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:
        """Learn from a training step what gradients do not teach: class means, targets, a refreshed frame.

        The training loop calls it without gradients after every step, and your own loop may; most heads have nothing
        to do. Never called on what is evaluated.

        Args:
            outputs: What this head made of the step's features.
            labels: (N,), int64.
            progress: Share of training that is done, in [0, 1].
        """

    def own_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return w_y . embed(features) for each sample's own class (N,): O(N D), whatever K is."""
        # index_select, not weight[labels]: several times faster on a CPU.
        own = self.weight.index_select(0, labels).to(features.dtype)
        return (own * self.embed(features)).sum(-1)

    def _checked(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.feature_dim:
            raise ValueError(
                f"{type(self).__name__} was built for features of width {self.feature_dim}, "
                f"got shape {tuple(features.shape)}: build it with feature_dim={features.shape[-1]}"
            )
        return features.to(torch.promote_types(torch.promote_types(features.dtype, self.weight.dtype), torch.float32))

    def extra_repr(self) -> str:
        """Show the sizes in the model's printout."""
        return f"feature_dim={self.feature_dim}, num_classes={self.num_classes}"


def draw_linear(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """Initialize a linear map in place as ``nn.Linear`` does, from a generator of its own.

    Numbers are drawn where the generator lives: a CPU generator gives every device the same weights.
    """
    bound = weight.shape[1] ** -0.5
    with torch.no_grad():
        for part in (weight, bias):
            if part is not None:
                drawn = torch.empty_like(part, device=part.device if generator is None else generator.device)
                part.copy_(drawn.uniform_(-bound, bound, generator=generator))
