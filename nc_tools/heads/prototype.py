"""A head whose class vectors move from class prototypes to a simplex ETF during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.normalize import normalize
from nc_tools.heads.running_means import RunningClassMeans, from_former_means
from nc_tools.heads.scale import LearnedScale
from nc_tools.records import Outputs


class PrototypeHead(ETFHead):
    """Simplex-ETF head whose class vectors start at the class prototypes and end at the vertices of the ETF.

        w_k = norm((1 - t) p_k + t m_k),    z = s W embed(h),

    with t the fraction of training that is done, p_k the running mean of the class's embedded features, scaled to unit
    length, and m_k the vertex. Early in training the head is a nearest-mean classifier of the current features; after
    the last step it is an exact :class:`ETFHead`. The number of classes is fixed: for classes that are added later see
    :class:`~nc_tools.heads.PreallocatedHead`.

    Source: this schedule is new. It interpolates between two targets of class-incremental learning, the prototype
    (Rebuffi et al. 2017, iCaRL) and the fixed vertex (Yang et al. 2023, "Neural collapse inspired feature-classifier
    alignment for few-shot class-incremental learning"). ProNC (Wang et al. 2025) moves its targets too, but by
    extending the ETF. The vertices are not rotated to the prototypes; for that see
    :class:`~nc_tools.heads.NearestETFHead`.

    Use a loss that also repels, such as cross-entropy. Dot regression only attracts: classes whose prototypes are close
    stay close.

    A class without samples so far is at its vertex. Only :meth:`observe` changes the means and t. The training loop of
    nc_tools calls it; in your own loop, call ``head.observe(outputs, labels, progress)`` after each step. The means and
    t are buffers, so evaluation and checkpoints use the vectors of the last step.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        momentum: Momentum of the running class means, in [0, 1).
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True (to K dimensions) or the number of dimensions, >= K - 1.
        normalize: Scale the (projected) features to unit length.
        frame_seed: Draws the Haar rotation of the vertices.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is below K - 1, the momentum is outside [0, 1), or the scale
            is not positive.

    Example:
        >>> head = PrototypeHead(4, 2, momentum=0.0)
        >>> features = torch.tensor([[3.0, 0, 0, 0], [0, 0, 2.0, 0]])
        >>> head.observe(head.outputs(features), torch.tensor([0, 1]), progress=0.0)
        >>> head.weight.tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """

    geometry = "prototypes to simplex ETF"
    progress: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        momentum: float = 0.9,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        normalize: bool = True,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            feature_dim, num_classes, scale=scale, projection=projection, normalize=normalize, frame_seed=frame_seed,
            generator=generator,
        )  # fmt: skip
        self.class_means = RunningClassMeans(num_classes, self.frame.shape[1], momentum)
        self.register_buffer("progress", torch.zeros(()))

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the vertices that ``frame_seed`` draws, and progress 0."""
        return super().initial_buffers() | {"progress": torch.zeros((), device="cpu")}

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the tensors of a checkpoint of version 0.2, which counted the samples of each class."""
        return from_former_means(state)

    def class_vectors(self) -> Tensor:
        """Return the unit class vectors (K, D')."""
        return self._rows(self.frame, *self.class_means())

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the dot product of each sample's embedded features and its own class vector (N,)."""
        parts = (self.frame, *self.class_means())
        own = self._rows(*(part.index_select(0, labels) for part in parts))
        return (own.to(features.dtype) * self.embed(features)).sum(-1)

    def _rows(self, vertices: Tensor, means: Tensor, has_mean: Tensor) -> Tensor:
        """Return the unit class vectors (R, D') that lie between the prototypes and the vertices (R, D')."""
        # normalize() keeps a row of zeros, where a plain division would give NaN.
        prototypes = torch.where(has_mean.unsqueeze(1), normalize(means), vertices)
        return normalize(prototypes.lerp(vertices, self.progress))

    @torch.no_grad()
    def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:
        """Update the running class means after a training step, and move the class vectors towards the ETF."""
        self.class_means.update(outputs.embedded, labels)
        self.progress.fill_(progress)
