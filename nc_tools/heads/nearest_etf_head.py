"""A head that rotates its simplex ETF to the running class means during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nc_tools.geometry.nearest_etf import nearest_simplex_etf
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.running_means import RunningClassMeans, broadcast_from_first, from_former_means
from nc_tools.heads.scale import LearnedScale
from nc_tools.records import Outputs


class NearestETFHead(ETFHead):
    """Simplex-ETF head that rotates its class vectors to the class means, so that no class has to move far.

    At every step the geometry is that of :class:`ETFHead`; only its rotation changes. From the first step on, every
    ``every`` steps, the frame W becomes :func:`~nc_tools.geometry.nearest_simplex_etf` of the running class means, and
    scores are relative to the mean of those means:

        z = s W (u - mu_G),    u = embed(h),    bias b = -s W mu_G,    mu_G the mean of the class means.

    Source: Markou, Ajanthan and Gould (2024, "Guiding neural collapse: optimizing towards the nearest simplex
    equiangular tight frame", section 3). They solve for the frame at each step by Riemannian optimization, pass
    gradients through the solution, and subtract the mean of the batch from the features, in evaluation too. Here the
    frame has a closed form and is constant between refreshes, and frame and bias come from training steps alone: the
    scores of a sample do not depend on the rest of the batch. Their running means give step t the weight 2 / (t + 1);
    those here use a constant momentum, so they follow features that still change.

    The training loop of nc_tools calls :meth:`observe`. In your own loop, call it after each step::

        head.observe(outputs, labels, progress)    # outputs = head.outputs(features)

    With several processes, every process must call it: class sums are added over all of them, and all use the frame of
    the first. The running means, the frame and the number of steps since the last refresh are buffers. The number of
    steps is an attribute too, so that a step without a refresh does not wait for the device.

    Args:
        feature_dim: D; without a projection at least K - 1.
        num_classes: K, at least 2.
        every: Steps between two refreshes, at least 1. At K = 1000, D = 2048 a refresh takes over a second on one CPU
            core.
        momentum: Momentum of the running class means, in [0, 1).
        delta: Weight of the distance to the previous frame, at least 0.
        scale: s: a positive number, ``LEARNED``, or None for :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the frame: True (to K dimensions) or the number of dimensions, >= K - 1.
        normalize: Scale the (projected) features to unit length.
        frame_seed: Draws the initial frame.
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
    since_refresh: Tensor

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
            raise ValueError(
                f"every must be at least 1 step, got {every}: use ETFHead for class vectors that never move"
            )
        if not delta >= 0:
            raise ValueError(f"delta must be at least 0, got {delta}: use 0 to ignore the previous class vectors")
        self.every = every
        self.delta = delta
        self._since = 0  # steps since the last refresh, as in the buffer
        self.register_buffer("since_refresh", torch.zeros(1))
        self.class_means = RunningClassMeans(num_classes, self.frame.shape[1], momentum)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The bias (K,): -s * W mu_G, mu_G the mean of the running class means; zero before the first step."""
        return self.scale * -torch.mv(self.frame, self.class_means.overall())

    @torch.no_grad()
    def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:  # noqa: ARG002
        """Update the running class means after a training step; rotate the class vectors every ``every`` steps."""
        self.class_means.update(outputs.embedded, labels)
        self.count_step()

    @torch.no_grad()
    def count_step(self) -> None:
        """Count a training step whose class means were updated, and refresh at the first of ``every`` steps."""
        if self._since == 0:
            self.refresh()
        self._since = (self._since + 1) % self.every
        self.since_refresh.fill_(self._since)

    @torch.no_grad()
    def refresh(self) -> None:
        """Rotate the class vectors to the running class means now, whatever ``every`` is.

        The vector of a class without samples stays as near to its old direction as the other classes allow. If the
        means are not finite, because training diverged, the frame does not change. Waits for the device.
        """
        means = self.class_means.completed()
        if bool(torch.isfinite(means).all()):
            self.frame.copy_(nearest_simplex_etf(means, self.frame, self.delta))
        broadcast_from_first(self.frame)

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the frame that ``frame_seed`` draws, and 0 steps since the last refresh."""
        return super().initial_buffers() | {"since_refresh": torch.zeros(1, device="cpu")}

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Make the head again as it was built."""
        super().reset_parameters(generator)
        self._since = 0

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint of version 0.2, which stored the number of steps beside them."""
        return from_former_means(state) | {"since_refresh": torch.tensor([float(description["steps"] % self.every)])}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self.since_refresh.is_meta:
            self._since = round(self.since_refresh.item()) % self.every

    def extra_repr(self) -> str:
        """Return the settings of the rotation for ``print(model)``."""
        return f"{super().extra_repr()}, every={self.every}, delta={self.delta:g}"
