"""The head that goes from class prototypes to a simplex ETF in the course of training."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.normalize import normalize
from nc_tools.heads.running_means import RunningClassMeans
from nc_tools.heads.scale import LearnedScale
from nc_tools.records import Outputs


class PrototypeHead(ETFHead):
    """Class vectors that start at the classes' own prototypes and end at the vertices of a simplex ETF.

        w_k = norm((1 - t) p_k + t m_k),    z = s W embed(h),

    with t the share of training that is done, p_k the running mean of the class's embedded features at unit length,
    and m_k the vertex. Early on the head agrees with the features there are, as a nearest-mean classifier does, which
    is what new classes need when old ones must not be disturbed; the last step leaves an exact :class:`ETFHead`.

    Source: the interpolation is a schedule of ours between two targets of class-incremental learning, the prototype
    (Rebuffi et al. 2017, iCaRL) and the fixed vertex (Yang et al. 2023, "Neural collapse inspired feature-classifier
    alignment for few-shot class-incremental learning"). ProNC (Wang et al. 2025) moves its targets too, but by
    extending the ETF. The vertices are not rotated towards the prototypes; for that see
    :class:`~nc_tools.heads.NearestETFHead`.

    Give it a loss that also repels, such as cross-entropy: dot regression only attracts, and classes whose prototypes
    still lie together then stay together.

    A class that has not been seen yet stands at its vertex. Means and t move in :meth:`observe` alone, which the
    training loop calls (in your own loop: ``head.observe(outputs, labels, progress)`` after each step), and are
    buffers: evaluation and a checkpoint see the vectors of the last step.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        momentum: Of the running class means, from 0 to below 1.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True to K dimensions, or a number of dimensions >= K - 1.
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

    @property
    def weight(self) -> Tensor:
        """Unit class vectors (K, D')."""
        return self._rows(self.frame, self.class_means.means, self.class_means.seen)

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return w_y . embed(features) for each sample's own class (N,): only those rows are formed."""
        means, seen = self.class_means.means, self.class_means.seen
        own = self._rows(*(part.index_select(0, labels) for part in (self.frame, means, seen)))
        return (own.to(features.dtype) * self.embed(features)).sum(-1)

    def _rows(self, vertices: Tensor, means: Tensor, seen: Tensor) -> Tensor:
        # unit() leaves a row of zeros as it is, where a plain division would not.
        prototypes = torch.where(seen.unsqueeze(1), normalize(means), vertices)
        return normalize(prototypes.lerp(vertices, self.progress))

    @torch.no_grad()
    def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:
        """Move the class means by a training step, and the class vectors along their way."""
        self.class_means.update(outputs.embedded, labels)
        self.progress.fill_(progress)
