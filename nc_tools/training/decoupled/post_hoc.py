"""Second stages that compute the classifier without training: tau-normalization and the nearest class mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nc_tools.heads.head import Head
from nc_tools.heads.imprint import imprint
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.tau_norm import tau_normalize
from nc_tools.records import Collected
from nc_tools.training.decoupled.stage import PostHocStage


@dataclass(frozen=True, kw_only=True)
class TauNormalize(PostHocStage):
    """Tau-normalization after training: w_k / ||w_k||^tau, without bias. See :func:`~nc_tools.heads.tau_normalize`.

    In a comparison tau is tuned for its arm with ``TunedParameter(path="second_stage.tau", values=(0.5, 1.0))``: it is
    chosen by balanced accuracy on the hold-out, and its trials count in the same budget as those of every other arm.
    Source: Kang et al. (2020, eq. 3).

    Attributes:
        tau: At least 0. With 0 only the bias is removed; with 1 all class vectors have norm 1.

    Raises:
        ValueError: If ``tau`` is negative or not finite.
    """

    tau: float = 0.7

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise ValueError(f"TauNormalize.tau must be at least 0 and finite, got {self.tau}. Use a number in [0, 1]")

    def check(self, head: Head) -> None:
        """Check that the norms of the head's class vectors are learned; otherwise raise ValueError.

        Raises:
            ValueError: If it is not a ``LinearHead``.
        """
        if not isinstance(head, LinearHead):
            raise ValueError(
                f"tau-normalization changes the norms of class vectors, but those of {type(head).__name__} all have "
                f"the same norm. Leave out the second stage, or use a LinearHead"
            )

    @torch.no_grad()
    def apply(self, head: Head, collect: Callable[[], Collected]) -> None:  # noqa: ARG002
        """Divide the head's class vectors by a power of their norms, and set its bias to zero."""
        head.weight.copy_(tau_normalize(head.weight.detach(), self.tau))
        if head.bias is not None:
            head.bias.zero_()


@dataclass(frozen=True, kw_only=True)
class NearestClassMean(PostHocStage):
    """Nearest class mean: replace the class vectors by the unit means of the training features.

    The means come from :func:`~nc_tools.heads.imprint`, over features of images without augmentation. The classifier
    keeps neither the class prior nor anything else that it has learned. The predicted class is the one whose mean has
    the largest cosine with the feature. That holds for a linear head too: its bias becomes zero, and the norm of a
    feature does not change the ranking of classes. Source: Kang et al. (2020, section 4.2); the mean is taken over unit
    features, as in weight imprinting.
    """

    def check(self, head: Head) -> None:
        """Check that the head's class vectors can be replaced by feature means; otherwise raise ValueError.

        Raises:
            ValueError: If it is neither a ``LinearHead`` nor a ``CosineHead``.
        """
        if not isinstance(head, LinearHead | CosineHead):
            raise ValueError(
                f"the nearest class mean replaces learned class vectors, but those of {type(head).__name__} cannot be "
                f"replaced. Use a LinearHead or a CosineHead"
            )

    @torch.no_grad()
    def apply(self, head: Head, collect: Callable[[], Collected]) -> None:
        """Replace the head's class vectors by feature means, and set its bias to zero."""
        collected = collect()
        means = imprint(collected.features, collected.labels, head.num_classes, scale=1.0).weight
        rows = head.direction if isinstance(head, CosineHead) else head.weight
        rows.copy_(means)
        if head.bias is not None:
            head.bias.zero_()
