"""The head that keeps to the simplex ETF nearest to the class means."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from nc_tools.geometry.nearest_etf import nearest_simplex_etf
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.running_means import RunningClassMeans, agree
from nc_tools.heads.scale import LearnedScale
from nc_tools.records import Outputs


class NearestETFHead(ETFHead):
    """Simplex-ETF head that turns its frame to the class means, instead of the means to the frame.

    The geometry is that of :class:`ETFHead` at every moment, only its rotation follows training: no class has to cross
    the feature space to reach a vertex drawn at random. Every ``every`` steps, from the first on, the frame W becomes
    :func:`~nc_tools.geometry.nearest_simplex_etf` of running class means, and the scores are taken about their center:

        z = s W (u - mu_G),    u = embed(h),    bias b = -s W mu_G,    mu_G the mean of the class means.

    Source: Markou, Ajanthan and Gould (2024, "Guiding neural collapse: optimizing towards the nearest simplex
    equiangular tight frame", section 3), who solve for the frame at each
    step by Riemannian optimization, pass gradients through the solution, and take features about the mean of the
    batch, the one under test included. Here the frame has a closed form, is a constant between refreshes, and frame
    and bias come from training steps alone: a sample's scores do not depend on what is evaluated beside it. Their
    averages fade as 2 / (t + 1); these have one momentum, so that they follow features that still move.

    The training loop calls :meth:`observe`; in a loop of your own, after each step::

        head.observe(outputs, labels, progress)    # outputs = head.outputs(features)

    Under several processes each of them must do so: class sums are added up over all, and the frame is that of the
    first. The running means, their counts and the frame are buffers; the number of steps is kept on the host, so that
    an ordinary step does not wait for the device, and saved beside them.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        every: Steps between two refreshes, at least 1. One at K = 1000, D = 2048 takes over a second of a CPU core.
        momentum: Of the running class means, from 0 to below 1.
        delta: Weight of staying near the previous frame, at least 0.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True to K dimensions, or a number of dimensions >= K - 1.
        normalize: Scale the (projected) features to unit length.
        frame_seed: Draws the frame to start from.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the width before the frame is below K - 1, ``every`` < 1, the momentum is outside [0, 1),
            ``delta`` < 0, or the scale is not positive.

    Example:
        >>> head = NearestETFHead(4, 3, every=1, momentum=0.0)
        >>> features = 5 * torch.eye(4)[:3]
        >>> head.observe(head.outputs(features), torch.arange(3), progress=0.1)
        >>> head(features).argmax(dim=1).tolist()
        [0, 1, 2]
    """

    geometry = "nearest simplex ETF"

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        every: int = 10,
        momentum: float = 0.9,
        delta: float = 1e-3,
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
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}: for a frame that never moves take ETFHead")
        if not delta >= 0:
            raise ValueError(f"delta must be at least 0, got {delta}: 0 forgets the previous frame at each refresh")
        self.every = every
        self.delta = delta
        self.steps = 0
        self.class_means = RunningClassMeans(num_classes, self.frame.shape[1], momentum)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """-s W mu_G (K,), from training means; zero before the first step."""
        return self.scale * -torch.mv(self.frame, self.class_means.overall())

    @torch.no_grad()
    def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:  # noqa: ARG002
        """Move the class means by a training step, and the frame when its turn has come."""
        self.class_means.update(outputs.embedded, labels)
        if self.steps % self.every == 0:
            self.refresh()
        self.steps += 1

    @torch.no_grad()
    def refresh(self) -> None:
        """Turn the frame to the class means now; a class not seen yet stays as near to its vector as the rest allow.

        Waits for the device. Means that are not finite, as of a training that diverged, leave the frame as it is.
        """
        means = self.class_means.completed()
        if bool(torch.isfinite(means).all()):
            self.frame.copy_(nearest_simplex_etf(means, self.frame, self.delta))
        agree(self.frame)

    def get_extra_state(self) -> Tensor:
        """Say beside the frame what it is and how many steps it has seen."""
        told = {"geometry": self.geometry, "frame_seed": self.frame_seed, "steps": self.steps}
        return torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the frame's seed and the number of steps; refuse another geometry."""
        super().set_extra_state(state)
        self.steps = int(json.loads(bytes(state.cpu().tolist()).decode())["steps"])

    def extra_repr(self) -> str:
        """Show the refresh in the model's printout."""
        return f"{super().extra_repr()}, every={self.every}, delta={self.delta:g}"
