"""Second stages that compute: norms taken back, or class vectors from class means."""

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

    In a comparison tau is the arm's knob, ``TunedParameter(path="second_stage.tau", values=(0.5, 1.0))``: it is chosen
    by balanced accuracy on the hold-out, and paid from the same number of trials as every other arm's. Source: Kang et
    al. (2020, eq. 3).

    Attributes:
        tau: At least 0; 0 takes away the bias alone, 1 makes all norms one.
    """

    tau: float = 0.7

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise ValueError(f"TauNormalize.tau must be at least 0 and finite, got {self.tau}: usually it is in [0, 1]")

    def check(self, head: Head) -> None:
        """Refuse a head whose class vectors have one norm already.

        Raises:
            ValueError: If it is no ``LinearHead``.
        """
        if not isinstance(head, LinearHead):
            raise ValueError(
                f"tau-normalization takes back the norms of learned class vectors, but those of {type(head).__name__} "
                f"have one length: leave the second stage out, or take a LinearHead"
            )

    @torch.no_grad()
    def apply(self, head: Head, collect: Callable[[], Collected]) -> None:  # noqa: ARG002
        """Normalize the rows and set the bias to zero."""
        head.weight.copy_(tau_normalize(head.weight.detach(), self.tau))
        if head.bias is not None:
            head.bias.zero_()


@dataclass(frozen=True, kw_only=True)
class NearestClassMean(PostHocStage):
    """Nearest class mean: class vectors are the unit means of the training features.

    They come from :func:`~nc_tools.heads.imprint`, over features of images without augmentation. No trace of the prior
    is left in the classifier, and none of what it had learned. The predicted class is the one whose mean has the
    largest cosine with the feature, over a linear head too: its bias becomes zero, and a feature's own norm changes no
    ranking. Source: Kang et al. (2020, section 4.2); the mean is taken over unit features, as in weight imprinting.
    """

    def check(self, head: Head) -> None:
        """Refuse a head whose class vectors are not free, or live in another space.

        Raises:
            ValueError: If it is neither a ``LinearHead`` nor a ``CosineHead``.
        """
        if not isinstance(head, LinearHead | CosineHead):
            raise ValueError(
                f"the nearest class mean overwrites learned class vectors, but those of {type(head).__name__} are not "
                f"free to be: take a LinearHead or a CosineHead"
            )

    @torch.no_grad()
    def apply(self, head: Head, collect: Callable[[], Collected]) -> None:
        """Overwrite the class vectors."""
        seen = collect()
        means = imprint(seen.features, seen.labels, head.num_classes, scale=1.0).weight
        rows = head.direction if isinstance(head, CosineHead) else head.weight
        rows.copy_(means)
        if head.bias is not None:
            head.bias.zero_()
